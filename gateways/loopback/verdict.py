"""What the script's network says of a call, a message or a mail."""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.results import Blame, Disposition, Reached, Result


class Verdict(NamedTuple):
    """The part of a ``Result`` that does not depend on when or for whom."""

    disposition: Disposition
    cause: str
    blame: Blame
    reached: Reached
    code: str = ""
    suppress: str = ""

    def result(self, **fields: Any) -> Result:
        """The whole of it: ``fields`` are the times, the rows and what else there is."""
        return Result(
            disposition=self.disposition,
            cause=self.cause,
            blame=self.blame,
            reached=self.reached,
            code=self.code,
            suppress=self.suppress,
            **fields,
        )
