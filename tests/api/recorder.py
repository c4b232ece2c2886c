"""Which endpoints of the guide each test has asked, over HTTP and answered with 200.

``api/ictcore/ENDPOINTS.md`` names a test for every endpoint. It cannot name a wrong one: whenever
a test that it names runs, what the test really asked is compared with what the table says.
"""

from __future__ import annotations

import re
from pathlib import Path

import httpx

from tests.api.guide import ENDPOINTS

Endpoint = tuple[str, str]

TABLE = Path(__file__).parents[2] / "api" / "ictcore" / "ENDPOINTS.md"
BY_TEST: dict[str, set[Endpoint]] = {}
"""What every test of this run has asked, by its id."""

_PARAMETER = re.compile(r"\\\{(\w+)\\\}")
_ROW = re.compile(r"^\| `(?P<verb>[A-Z]+) (?P<path>/[^`]*)` \| `(?P<test>[^`]+)` \|$")
_OK = 200


class Recorder:
    """Collects the requests of the test that is running."""

    def __init__(self) -> None:
        self.seen: set[Endpoint] = set()

    async def __call__(self, response: httpx.Response) -> None:
        """Note a response of the node (a hook of httpx)."""
        endpoint = endpoint_of(response.request.method, response.request.url.path)
        if endpoint is not None and response.status_code == _OK:
            self.seen.add(endpoint)

    def begin(self) -> None:
        """Forget what was asked before."""
        self.seen = set()

    def end(self, test: str) -> set[Endpoint]:
        """What was asked since ``begin``, kept as the requests of ``test``."""
        BY_TEST[test] = self.seen
        return self.seen


RECORDER = Recorder()


def endpoint_of(verb: str, path: str) -> Endpoint | None:
    """The guide's endpoint that a request is for."""
    return next(
        (one for one in ENDPOINTS if one[0] == verb and _PATTERNS[one].fullmatch(path)), None
    )


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(_PARAMETER.sub(_value, re.escape(path)))


def _value(parameter: re.Match[str]) -> str:
    return r"\d+" if parameter[1].endswith("_id") else r"[^/]+"


_PATTERNS = {endpoint: _pattern(endpoint[1]) for endpoint in ENDPOINTS}


def table() -> dict[Endpoint, str]:
    """The test that the table names for each endpoint."""
    rows = (_ROW.match(line) for line in TABLE.read_text().splitlines())
    return {(row["verb"], row["path"]): row["test"] for row in rows if row}
