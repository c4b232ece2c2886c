"""An e-mail between engine and gateways: what all messages of a program share, what one gets."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from engine.results import ResultRow


class MailAddress(msgspec.Struct, frozen=True):
    """A mailbox and the name of whose it is ("" = none)."""

    address: str
    name: str = ""


class MailFile(msgspec.Struct, frozen=True):
    """A file of a mail: ``path`` absolute, ``name`` harmless, ``size`` in bytes."""

    path: Path
    name: str
    type: str
    size: int


class MailForm(msgspec.Struct, frozen=True, kw_only=True, weakref=True):
    """What all mails of a prepared program share; a gateway encodes equal ones once.

    ``body`` (HTML) and ``body_alt`` (plain text) are the fixed texts round the values: n + 1 for n
    of them, () where that part is missing. At least one of the two is there.
    """

    body: tuple[str, ...] = ()
    body_alt: tuple[str, ...] = ()
    attachments: tuple[MailFile, ...] = ()


class MailMessage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one contact gets: values are escaped for what they become part of.

    Address and sender are the order's. ``to_name`` is the contact's. ``unsubscribe``: the URL that
    a POST unsubscribes by (RFC 8058), "" where there is none.
    """

    form: MailForm
    subject: str
    to_name: str = ""
    body: tuple[str, ...] = ()
    body_alt: tuple[str, ...] = ()
    unsubscribe: str = ""


class InboundMail(msgspec.Struct, frozen=True, kw_only=True):
    """A mail somebody sent to one of our addresses.

    ``provider_id`` 0 = the listener. ``source`` is its From (else the envelope's sender, "" for
    none). ``files`` may be moved by who takes it; who handed it in removes what is left. ``key``
    (the same for all recipients of a mail: an account has it once) and ``repeat_within_s`` as in
    ``InboundText``. HTML in ``body`` is cleaned.
    """

    provider_id: int
    source: MailAddress
    destination: str
    subject: str
    body: str
    body_alt: str
    message_id: str
    at: datetime
    key: str
    files: tuple[MailFile, ...] = ()
    repeat_within_s: float = 0.0
    rows: tuple[ResultRow, ...] = ()
