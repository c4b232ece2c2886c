"""Mails to our accounts: whose they are, kept with their files before they are let go."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import idna
import structlog

from engine.addresses import domain_ascii, domain_of, plain
from engine.bus import Bus
from engine.clock import Clock
from engine.errors import InvalidError, UnavailableError
from engine.events import of_arrival
from engine.gateway import Reception
from engine.inbound import ANONYMOUS, GONE, LOOKS
from engine.mail import InboundMail
from engine.model import Service, Template
from engine.results import ResultRow
from engine.store.arrival import Arrival, Served
from engine.store.base import Store
from engine.uploads import MediaFolder
from engine.validation import LENGTHS

log = structlog.get_logger("inbound_mail")

PROGRAM = "receiveemail"

_SUCCESS = ResultRow("application", "email_receive", "success")
_MOST = LENGTHS[Template]
_TITLE = 255
_HALF = re.compile(r"&[a-z]{0,3}\Z")  # of an entity that a cut went through


class InboundMails:
    """Takes mails to our accounts."""

    def __init__(self, store: Store, clock: Clock, bus: Bus, folder: MediaFolder) -> None:
        self._store = store
        self._clock = clock
        self._bus = bus
        self._folder = folder

    async def serves(self, address: str) -> bool:
        """See ``Inbox.serves_mail``."""
        return (await self._taker(address)) is not None

    async def receive(self, mail: InboundMail) -> Reception:
        """See ``Inbox.receive_mail``.

        The account is the one with the destination's address, its program the one of type
        receiveemail that serves it.
        """
        for _ in range(LOOKS):
            try:
                return await self._receive(mail)
            except InvalidError as error:
                if error.field not in GONE:
                    raise
        raise UnavailableError("the account or its program is being changed")

    async def _receive(self, mail: InboundMail) -> Reception:
        taker = await self._taker(mail.destination)
        if taker is None or taker.program_id is None:
            log.info(
                "unwanted", provider_id=mail.provider_id, domain=domain_of(mail.destination)[:255]
            )
            return Reception.UNWANTED
        if await self._repeated(mail, taker):
            return Reception.REPEATED
        paths = await self._kept(mail)
        kept = None
        try:
            kept = await self._store.receive(self._arrival(mail, taker, taker.program_id, paths))
        finally:
            if kept is None:
                self._folder.discard(*paths)
        if kept is None:
            return Reception.REPEATED
        if self._bus.listening:
            for event in of_arrival(kept, self._clock()):
                self._bus.publish(event)
        return Reception.TAKEN

    async def _taker(self, address: str) -> Served | None:
        for spelled in _spellings(address):
            served = await self._store.served_address(spelled, PROGRAM)
            if taker := next((one for one in served if one.program_id is not None), None):
                return taker
        return None

    async def _repeated(self, mail: InboundMail, taker: Served) -> bool:
        """Asked before files are kept, which cost more than the rest of a mail; and again then."""
        since = _repeat_since(mail)
        if since is None or not mail.files:
            return False
        return await self._store.came(mail.provider_id, _key(mail, taker), since)

    async def _kept(self, mail: InboundMail) -> list[str]:
        if not mail.files:
            return []
        return await self._folder.keep_copies(*((one.path, "attachment") for one in mail.files))

    def _arrival(
        self, mail: InboundMail, account: Served, program_id: int, paths: Sequence[str]
    ) -> Arrival:
        email = _sender(mail)
        title = f"Email from {email or ANONYMOUS}"
        return Arrival(
            at=mail.at,
            key=_key(mail, account),
            provider_id=mail.provider_id,
            repeat_since=_repeat_since(mail),
            owner_id=account.owner_id,
            account_id=account.account_id,
            program_id=program_id,
            service=Service.EMAIL,
            phone="" if email else ANONYMOUS,
            email=email,
            name=mail.source.name,
            destination=mail.destination,
            title=title[:_TITLE],
            origin=PROGRAM,
            message=_template(mail, title, paths),
            rows=(_SUCCESS, *mail.rows),
        )


def _key(mail: InboundMail, account: Served) -> str:
    """Of an account's copy, however many of its addresses the mail was sent to."""
    return f"{mail.key} {account.account_id}"


def _repeat_since(mail: InboundMail) -> datetime | None:
    within_s = mail.repeat_within_s
    return mail.at - timedelta(seconds=within_s) if within_s > 0 else None


def _template(mail: InboundMail, name: str, paths: Sequence[str]) -> Template:
    """Where there is no HTML, the body shows what was written in plain text, and nothing more."""
    attachments: list[dict[str, Any]] = [
        {"path": path, "name": one.name, "type": one.type, "size": one.size}
        for one, path in zip(mail.files, paths, strict=True)
    ]
    return Template(
        name=name[: _MOST["name"]],
        type="html" if mail.body else "plain",
        subject=mail.subject[: _MOST["subject"]],
        body=mail.body[: _MOST["body"]] or _as_html(mail.body_alt, _MOST["body"]),
        body_alt=mail.body_alt[: _MOST["body_alt"]],
        attachments=tuple(attachments),
    )


def _as_html(text: str, most: int) -> str:
    """Plain text for whoever shows it as HTML; a stranger's markup stays text."""
    before, after = "<pre>", "</pre>"
    room = most - len(before) - len(after)
    escaped = html.escape(text[:room], quote=False)[:room]
    return f"{before}{_HALF.sub('', escaped)}{after}" if text else ""


def _spellings(address: str) -> Iterator[str]:
    """An address, and with its domain in the other of the two forms of IDNA; none if it is none."""
    bare = plain(address)
    if bare is None:
        return
    yield bare.lower()
    domain = domain_of(bare)
    try:
        other = idna.decode(domain) if domain.isascii() else domain_ascii(domain)
    except (UnicodeError, InvalidError):
        return
    if other != domain.lower():
        yield (bare.removesuffix(domain) + other).lower()


def _sender(mail: InboundMail) -> str:
    """The address an answer can be sent to; "" where there is none."""
    return plain(mail.source.address) or ""
