"""Reading strangers' mail (RFC 2045-2049) within limits. Pure: the files go where ``save`` says.

Parts are found in the raw octets, so a limit is known before anything is made of what is over it.
``read`` is meant for a process that may be killed (reader.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from hashlib import sha256

import msgspec

from engine.filenames import safe_name
from gateways.smtp.charsets import decoded, transferred
from gateways.smtp.dsn import report_of
from gateways.smtp.fields import Fields, Head, head_of
from gateways.smtp.parsed import Parsed, ParsedBounce, ParsedFile, ParsedRecipient
from gateways.smtp.texts import MAX_OCTETS, MAX_TEXT, clean_html, flowed, plain_text

__all__ = ["Parsed", "ParsedBounce", "ParsedFile", "ParsedRecipient", "read"]

MAX_PARTS = 200
MAX_DEPTH = 20
MAX_FILES = 10
MAX_MARKS = 20_000
"""Lines of one multipart that begin like its delimiter; each costs a microsecond per level."""

_MAX_SUBJECT = 1_000
_MAX_LINE = 255
_MAX_BOUNDARY = 200  # RFC 2046 §5.1.1 allows 70
_NONE = -1
_DELIMITER_END = re.compile(rb"(--)?[ \t]{0,200}\r?(?:\n|\Z)")
_TYPE = re.compile(r"[a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64}")
_OCTETS = "application/octet-stream"
_PDF, _TIFF = "application/pdf", "image/tiff"
_SNIFFED = frozenset({_PDF, _TIFF})
_PDF_WITHIN = 1024
_TIFF_MAGIC = (b"II*\0", b"MM\0*")
_TEXTS = {"text/plain": "text.txt", "text/html": "text.html"}
_NAMES = {**_TEXTS, "message/rfc822": "message.eml", "message/global": "message.eml"}
_RETURNED = frozenset(
    {"message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers"}
)
_STATUS = frozenset({"message/delivery-status", "message/global-delivery-status"})
_BOUNCERS = re.compile(r"(?i)(mailer-daemon|postmaster|mail.?delivery|bounce)")
_BOUNCE_SUBJECT = re.compile(
    r"(?i)undeliver|deliver(y|ed).{0,20}(fail|status|problem|error)|return(ed|ing).{0,20}mail"
    r"|fail(ed|ure).{0,20}(deliver|notice|notification)|could not.{0,20}deliver|mail.{0,10}failure"
)


class _Leaf(msgspec.Struct, eq=False):
    """A part without parts. ``alternative`` numbers the multipart/alternative around it."""

    kind: str
    parameters: dict[str, str]
    fields: Fields
    start: int
    end: int
    alternative: int
    name: str
    attached: bool

    @property
    def is_text(self) -> bool:
        return self.kind in _TEXTS and not self.attached and not self.name

    def is_blank(self, raw: bytes) -> bool:
        return self.is_text and not raw[self.start : self.end].strip()

    def octets(self, raw: bytes) -> bytes:
        return transferred(raw[self.start : self.end], self.fields.value(_ENCODING))


_ENCODING = "content-transfer-encoding"


def read(
    raw: bytes,
    save: Callable[[int, bytes], None],
    guess: Callable[[bytes], ParsedBounce | None] = lambda _raw: None,
) -> Parsed:
    """All of a mail that we take; ``save`` gets each file's index and bytes.

    ``guess`` is asked about what looks like a bounce and is no RFC 3464 report.
    """
    head = head_of(raw)
    walk = _Walk(raw)
    if head.cut:
        walk.cut.append("header")
    leaves = [leaf for leaf in walk.leaves(head, len(raw), 0, _NONE) if not leaf.is_blank(raw)]
    html, plain = _chosen(leaves)
    body = walk.html(html) if html else ""
    body_alt = walk.plain(plain) if plain else ""
    files = tuple(walk.files([leaf for leaf in leaves if leaf not in (html, plain)], save))
    bounce = _report(raw, head.fields, leaves)
    if bounce is None and not walk.cut and _looks_bounced(head.fields):
        bounce = guess(raw)
    limits = tuple(walk.cut)
    return _parsed(head, raw, body=body, body_alt=body_alt, files=files, bounce=bounce, cut=limits)


class _Walk:
    """One way through the parts of a mail; ``cut`` names the limits that were met."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.cut: list[str] = []
        self._parts = 0
        self._alternatives = 0

    def leaves(self, head: Head, end: int, depth: int, alternative: int) -> Iterator[_Leaf]:
        self._parts += 1
        kind, parameters = head.fields.structured("content-type")
        boundary = parameters.get("boundary", "").encode("utf-8", "replace")
        if not kind.startswith("multipart/") or not 0 < len(boundary) <= _MAX_BOUNDARY:
            yield _leaf(head, kind, parameters, end, alternative)
        elif depth == MAX_DEPTH:
            self._over("depth")
            yield _leaf(head, _OCTETS, {}, end, alternative)
        else:
            if kind == "multipart/alternative" and alternative == _NONE:
                alternative, self._alternatives = self._alternatives, self._alternatives + 1
            for start, stop in self._within(head.body, end, boundary):
                part = head_of(self.raw, start, stop)
                yield from self.leaves(part, stop, depth + 1, alternative)

    def _within(self, start: int, end: int, boundary: bytes) -> Iterator[tuple[int, int]]:
        """Where the parts between delimiter lines begin and end (RFC 2046 §5.1.1)."""
        begun = _NONE
        for before, after, last in self._delimiters(start, end, boundary):
            if begun != _NONE:
                yield begun, max(begun, before)
            if last:
                return
            if self._parts >= MAX_PARTS:
                self._over("parts")
                return
            begun = after
        if begun != _NONE:
            yield begun, end

    def _delimiters(self, start: int, end: int, boundary: bytes) -> Iterator[tuple[int, int, bool]]:
        """Delimiter lines: where what is before ends, where the next line begins, if all ends."""
        raw, mark = self.raw, b"\n--" + boundary
        at = raw.find(mark, max(start - 1, 0), end)
        for _ in range(MAX_MARKS):
            if at < 0:
                return
            found = _DELIMITER_END.match(raw, at + len(mark), end)
            if found:
                before = at - (raw[at - 1 : at] == b"\r")
                yield before, found.end(), found[1] is not None
            # The line end behind a delimiter may be the one before the next.
            at = raw.find(mark, at + len(mark), end)
        self._over("parts")

    def html(self, leaf: _Leaf) -> str:
        text, cut = clean_html(self._decoded(leaf))
        if cut:
            self._over("html")
        return text

    def plain(self, leaf: _Leaf) -> str:
        text = plain_text(self._decoded(leaf))
        if leaf.parameters.get("format", "").lower() == "flowed":
            delete = leaf.parameters.get("delsp", "").lower() == "yes"
            text = flowed(text, delete_space=delete)
        if len(text) > MAX_TEXT:
            self._over("text")
        return text[:MAX_TEXT]

    def _decoded(self, leaf: _Leaf) -> str:
        octets = leaf.octets(self.raw)
        if len(octets) > MAX_OCTETS:
            self._over("text")
        return decoded(octets[:MAX_OCTETS], leaf.parameters.get("charset", ""))

    def files(
        self, leaves: list[_Leaf], save: Callable[[int, bytes], None]
    ) -> Iterator[ParsedFile]:
        for index, leaf in enumerate(leaves):
            if index == MAX_FILES:
                self._over("files")
                return
            octets = leaf.octets(self.raw)
            save(index, octets)
            yield _file(index, leaf, octets)

    def _over(self, limit: str) -> None:
        if limit not in self.cut:
            self.cut.append(limit)


def _leaf(head: Head, kind: str, parameters: dict[str, str], end: int, alternative: int) -> _Leaf:
    disposition, its = head.fields.structured("content-disposition")
    return _Leaf(
        kind=kind or "text/plain",
        parameters=parameters,
        fields=head.fields,
        start=head.body,
        end=end,
        alternative=alternative,
        name=safe_name(its.get("filename", "") or parameters.get("name", "")),
        attached=disposition == "attachment",
    )


def _chosen(leaves: list[_Leaf]) -> tuple[_Leaf | None, _Leaf | None]:
    """HTML and plain text of the first alternative, else the biggest of each."""
    texts = [leaf for leaf in leaves if leaf.is_text]
    within = [leaf for leaf in texts if leaf.alternative == 0]
    if within:
        first = {leaf.kind: leaf for leaf in reversed(within)}
        return first.get("text/html"), first.get("text/plain")
    texts.sort(key=lambda leaf: (leaf.end - leaf.start, -leaf.start))  # of equal ones the first
    biggest = {leaf.kind: leaf for leaf in texts}
    return biggest.get("text/html"), biggest.get("text/plain")


def _file(index: int, leaf: _Leaf, octets: bytes) -> ParsedFile:
    name = leaf.name or _NAMES.get(leaf.kind, f"attachment_{index + 1}.bin")
    return ParsedFile(index, name, _type(leaf.kind, octets), len(octets))


def _type(declared: str, octets: bytes) -> str:
    """What fax and the like are decided by is not taken from the sender's word."""
    if b"%PDF-" in octets[:_PDF_WITHIN]:
        return _PDF
    if octets.startswith(_TIFF_MAGIC):
        return _TIFF
    return declared if _TYPE.fullmatch(declared) and declared not in _SNIFFED else _OCTETS


def _report(raw: bytes, fields: Fields, leaves: list[_Leaf]) -> ParsedBounce | None:
    if fields.structured("content-type")[0] != "multipart/report":
        return None
    status = next((leaf for leaf in leaves if leaf.kind in _STATUS), None)
    if status is None:
        return None
    returned = next((leaf for leaf in leaves if leaf.kind in _RETURNED), None)
    return report_of(status.octets(raw), returned.octets(raw) if returned else b"")


def _looks_bounced(fields: Fields) -> bool:
    if fields.raw("return-path") == b"<>" or _BOUNCE_SUBJECT.search(fields.text("subject")):
        return True
    return bool(_BOUNCERS.search(fields.value("from")))


def _parsed(
    head: Head,
    raw: bytes,
    *,
    body: str,
    body_alt: str,
    files: tuple[ParsedFile, ...],
    bounce: ParsedBounce | None,
    cut: tuple[str, ...],
) -> Parsed:
    fields = head.fields
    return Parsed(
        subject=fields.text("subject")[:_MAX_SUBJECT],
        source=fields.mailbox("from"),
        message_id=fields.value("message-id")[:_MAX_LINE],
        date=fields.value("date")[:_MAX_LINE],
        body=body,
        body_alt=body_alt,
        files=files,
        bounce=bounce,
        auto=fields.value("auto-submitted").lower() not in ("", "no"),
        digest=_digest(raw, head),
        cut=cut,
    )


def _digest(raw: bytes, head: Head) -> str:
    """Of what a mail handed over again has in common: never of Received lines."""
    digest = sha256()
    for name in ("message-id", "from", "date", "subject"):
        digest.update(head.fields.raw(name) + b"\0")
    digest.update(memoryview(raw)[head.body :])
    return digest.hexdigest()
