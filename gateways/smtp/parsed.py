"""What a reader process answers about a mail. Pure."""

from __future__ import annotations

import msgspec

from engine.mail import MailAddress


class ParsedFile(msgspec.Struct, frozen=True):
    """A file of a mail: its bytes are at ``scratch/{index}``.

    ``name`` is harmless, maybe "". ``type`` is sniffed for PDF and TIFF, else as declared.
    """

    index: int
    name: str
    type: str
    size: int


class ParsedRecipient(msgspec.Struct, frozen=True):
    """What a report says of one recipient (RFC 3464 §2.3): original address, else the final one."""

    address: str
    action: str  # small letters: failed delayed delivered relayed expanded
    status: str = ""  # RFC 3463
    diagnostic: str = ""  # without its type

    @property
    def final(self) -> bool:
        """Whether nothing more comes: failed, with a 4.x status too (its time was over)."""
        return self.action == "failed"


class ParsedBounce(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery status notification. ``heuristic``: no RFC 3464 report, guessed from its text."""

    envid: str = ""
    original_message_id: str = ""
    recipients: tuple[ParsedRecipient, ...] = ()
    heuristic: bool = False


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """A mail as we take it: no control characters, HTML cleaned, names harmless.

    ``auto``: made by a machine (RFC 3834). ``digest``: of what a redelivery has in common.
    ``cut`` names what was over a limit: header depth parts text html files.
    """

    subject: str = ""
    source: MailAddress = MailAddress("")
    message_id: str = ""
    date: str = ""
    body: str = ""
    body_alt: str = ""
    files: tuple[ParsedFile, ...] = ()
    bounce: ParsedBounce | None = None
    auto: bool = False
    digest: str = ""
    cut: tuple[str, ...] = ()

    @property
    def is_named(self) -> bool:
        """Whether it says which of several equal ones it is (RFC 5322 wants a Date at least)."""
        return bool(self.message_id or self.date)
