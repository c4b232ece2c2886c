"""A mail out of its form: encoded once for all, filled in for each. Pure: files are read before."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from hashlib import sha256
from re import compile as pattern
from typing import NamedTuple, Protocol

import msgspec

from engine.addresses import needs_smtputf8
from engine.errors import InvalidError
from engine.mail import MailAddress, MailFile, MailForm, MailMessage
from gateways.smtp.encoding import mostly_foreign, quoted, utf8, wrapped
from gateways.smtp.headers import address_header, attachment_header, header

_MESSAGE_ID = pattern(r"<[!-;=?-~]{1,200}@[!-;=?-~]{1,253}>")
_URL = pattern(r"https?://[!-;=?-~]{1,880}")
_SOFT_END = b"=\r\n"
_ONE_CLICK = b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"


class Signs(Protocol):
    """What ``fill`` needs of a DKIM key."""

    def sign(self, headers: Sequence[tuple[str, str]], body_hash: bytes, at: int) -> bytes:
        """A whole signature field with CRLF, of SHA-256 of the canonical body (not in base64)."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who gets a mail from whom. ``message_id`` has its brackets; ``mail_from`` "" = null sender.

    ``sender`` and ``to`` are the headers', ``mail_from`` and ``envid`` those of the transaction.
    """

    sender: MailAddress
    to: MailAddress
    message_id: str
    at: datetime
    reply_to: str = ""
    mail_from: str = ""
    envid: str = ""

    @property
    def smtputf8(self) -> bool:
        """Whether a header has an address that only SMTPUTF8 carries (RFC 6532)."""
        addresses = (self.sender.address, self.to.address, self.reply_to, self.mail_from)
        return any(needs_smtputf8(address) for address in addresses)


class Blueprint:
    """A form encoded once: multipart/mixed {multipart/alternative {plain, HTML}, files …}.

    Only what is there: one text alone is the mail itself. ``files`` are the bytes of
    ``form.attachments``, in their order. Boundaries begin with ``=_``, which neither
    quoted-printable nor base64 can contain. Usable from several threads.
    """

    def __init__(self, form: MailForm, files: Sequence[bytes]) -> None:
        """Raises ``InvalidError`` for a form without text and for names with control characters."""
        texts = [("plain", form.body_alt)] if form.body_alt else []
        texts += [("html", form.body)] if form.body else []
        if not texts:
            raise InvalidError("a mail needs a text", field="body")
        self._texts = [_text(kind, fixed) for kind, fixed in texts]
        body = [_Part(text.head, "", text) for text in self._texts]
        whole, tail = _alternative(body) if len(body) > 1 else (body, b"")
        if form.attachments:
            whole, tail = _mixed(whole, tail, zip(form.attachments, files, strict=True))
        elif not tail:
            tail = self._texts[0].end
        self._mime = f"MIME-Version: 1.0\r\n{whole[0].head}".encode()
        self._parts = [(part.before.encode(), part.text) for part in whole]
        self._tail = tail

    def fill(
        self, message: MailMessage, envelope: Envelope, signers: Sequence[Signs] = ()
    ) -> tuple[bytes, ...]:
        """The mail of one contact in chunks for a ``Parcel``; attachments are one shared object.

        Raises ``InvalidError`` with a field: subject, from, to, reply_to, message_id, unsubscribe.
        """
        lines = [*_head(message, envelope), self._mime, *_list_headers(message.unsubscribe)]
        body = self._body(message)
        if signers:
            lines[:0] = self._signed(signers, lines, body, envelope.at)
        return b"".join([*lines, b"\r\n", body]), self._tail

    def _body(self, message: MailMessage) -> bytes:
        pieces = []
        for before, text in self._parts:
            values = message.body if text.kind == "html" else message.body_alt
            pieces += [before, *text.filled(values)]
        return b"".join(pieces)

    def _signed(
        self, signers: Sequence[Signs], lines: Sequence[bytes], body: bytes, at: datetime
    ) -> list[bytes]:
        digest = sha256(body)
        digest.update(self._tail)
        fields = _fields(b"".join(lines))
        seconds = int(at.timestamp())
        return [signer.sign(fields, digest.digest(), seconds) for signer in signers]


class _Quoted:
    """A text in quoted-printable: values stand on lines of their own between fixed ones."""

    def __init__(self, kind: str, fixed: Sequence[str]) -> None:
        self.kind = kind
        self.head = _text_head(kind, "quoted-printable")
        self.end = _SOFT_END  # a body that ends a line would lose empty ones to canonicalisation
        self._fixed = [quoted(text) for text in fixed]

    def filled(self, values: Sequence[str]) -> list[bytes]:
        pieces = [self._fixed[0]]
        for value, after in zip(values, self._fixed[1:], strict=True):
            pieces += [quoted(value), after]
        return pieces


class _Base64:
    """A text in a script for which base64 is shorter: encoded whole for each."""

    def __init__(self, kind: str, fixed: Sequence[str]) -> None:
        self.kind = kind
        self.head = _text_head(kind, "base64")
        self.end = b""
        self._fixed = [utf8(text) for text in fixed]

    def filled(self, values: Sequence[str]) -> list[bytes]:
        pieces = [self._fixed[0]]
        for value, after in zip(values, self._fixed[1:], strict=True):
            pieces += [utf8(value), after]
        return [wrapped(b"".join(pieces))]


class _Part(NamedTuple):
    """Headers of what encloses it, what stands before it in the body, the text."""

    head: str
    before: str
    text: _Quoted | _Base64


def _text(kind: str, fixed: Sequence[str]) -> _Quoted | _Base64:
    return _Base64(kind, fixed) if mostly_foreign(fixed) else _Quoted(kind, fixed)


def _text_head(kind: str, encoding: str) -> str:
    kind = f"Content-Type: text/{kind}; charset=utf-8\r\n"
    return f"{kind}Content-Transfer-Encoding: {encoding}\r\n"


def _alternative(parts: Sequence[_Part]) -> tuple[list[_Part], bytes]:
    head, boundary = _multipart("alternative")
    within = [
        _Part(head, f"{before}--{boundary}\r\n{part.head}\r\n", part.text)
        for before, part in zip(("", "\r\n"), parts, strict=True)
    ]
    return within, f"\r\n--{boundary}--\r\n".encode()


def _mixed(
    parts: Sequence[_Part], tail: bytes, files: zip[tuple[MailFile, bytes]]
) -> tuple[list[_Part], bytes]:
    head, boundary = _multipart("mixed")
    first = f"--{boundary}\r\n{parts[0].head}\r\n{parts[0].before}"
    chunks = [tail]
    for file, octets in files:
        chunks += [f"\r\n--{boundary}\r\n".encode(), attachment_header(file), b"\r\n"]
        chunks.append(wrapped(octets))
    chunks.append(f"\r\n--{boundary}--\r\n".encode())
    return [_Part(head, first, parts[0].text), *parts[1:]], b"".join(chunks)


def _multipart(kind: str) -> tuple[str, str]:
    boundary = f"=_{secrets.token_hex(12)}"
    return f'Content-Type: multipart/{kind};\r\n boundary="{boundary}"\r\n', boundary


def _head(message: MailMessage, envelope: Envelope) -> list[bytes]:
    lines = [
        _date(envelope.at.replace(microsecond=0)),
        _ours("From", envelope.sender),
        address_header("To", envelope.to),
        header("Subject", message.subject),
        _message_id(envelope.message_id),
    ]
    if envelope.reply_to:
        lines.append(_ours("Reply-To", MailAddress(envelope.reply_to)))
    return lines


def _list_headers(url: str) -> list[bytes]:
    """RFC 8058 §3.1: the URL and the word that a POST unsubscribes."""
    if not url:
        return []
    if not _URL.fullmatch(url):
        raise InvalidError("not a URL", field="unsubscribe")
    return [f"List-Unsubscribe: <{url}>\r\n".encode(), _ONE_CLICK]


def _message_id(message_id: str) -> bytes:
    if not _MESSAGE_ID.fullmatch(message_id):
        raise InvalidError("not a Message-ID", field="message_id")
    return f"Message-ID: {message_id}\r\n".encode()


@lru_cache(maxsize=64)
def _date(at: datetime) -> bytes:
    return f"Date: {format_datetime(at.astimezone(UTC))}\r\n".encode()


@lru_cache(maxsize=256)
def _ours(name: str, who: MailAddress) -> bytes:
    return address_header(name, who)


def _fields(lines: bytes) -> list[tuple[str, str]]:
    """Fields as they stand: name, and value with the blank before it and its folding."""
    unfolded = lines.decode().replace("\r\n ", "\n ").split("\r\n")[:-1]
    pairs = (line.partition(":") for line in unfolded)
    return [(name, value.replace("\n ", "\r\n ")) for name, _, value in pairs]
