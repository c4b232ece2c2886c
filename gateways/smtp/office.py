"""From an order to a mail that can be queued: addresses, envelope, blueprint, signers."""

from __future__ import annotations

import random
import socket
import weakref
from collections.abc import Callable
from itertools import count
from pathlib import Path

import trio

from engine.addresses import domain_ascii, plain
from engine.clock import Clock
from engine.config import SmtpConfig
from engine.errors import InvalidError
from engine.gateway import Order
from engine.mail import MailAddress, MailForm, MailMessage
from engine.results import Result, ResultRow
from gateways.smtp import results
from gateways.smtp.books import Flag
from gateways.smtp.compose import Blueprint, Envelope
from gateways.smtp.dkim import Signer, signers_for
from gateways.smtp.jobs import Job
from gateways.smtp.lane import Lane
from gateways.smtp.replies import BUSY
from gateways.smtp.settings import SmtpSettings
from gateways.smtp.verp import Verp

_KEYS_KEPT = 100


class Office:
    """What all mails of the gateway are made with. ``max_files_bytes``: of one mail's attachments.

    A form is encoded once for all that are equal, for as long as somebody holds it.
    """

    def __init__(
        self,
        config: SmtpConfig,
        verp: Verp,
        clock: Clock,
        dice: random.Random,
        *,
        max_files_bytes: int,
    ) -> None:
        self._config = config
        self._verp = verp
        self._clock = clock
        self._dice = dice
        self._max_files_bytes = max_files_bytes
        self._hostname = config.hostname or socket.gethostname()
        self._ids = count(1)
        self._blueprints: weakref.WeakKeyDictionary[MailForm, Blueprint] = (
            weakref.WeakKeyDictionary()
        )
        self._encoding: weakref.WeakKeyDictionary[MailForm, trio.Lock] = weakref.WeakKeyDictionary()

    async def job(
        self,
        order: Order,
        message: MailMessage,
        *,
        lane: Lane,
        not_after: float,
        rows: list[ResultRow],
        on_leaving: Callable[[], None],
    ) -> Job:
        """The mail of an order; ``InvalidError`` names source, destination or what cannot be."""
        settings = lane.settings
        sender = self._sender(order, settings)
        recipient, domain = _wire_address(order.destination, "destination")
        return Job(
            id=next(self._ids),
            spool_id=order.spool_id,
            transmission_id=order.transmission_id,
            domain=domain,
            recipient=recipient,
            message=message,
            envelope=self._envelope(order, message, sender, recipient, settings),
            blueprint=await self._blueprint(message.form),
            signers=await _signers_of(lane, settings, sender.address),
            settings=settings,
            direct=lane.direct,
            flags=_flags(settings),
            bounces=self.bounces(settings),
            not_after=not_after,
            rows=rows,
            on_leaving=on_leaving,
        )

    def bounces(self, settings: SmtpSettings) -> bool:
        """Whether a bounce can reach us, so that silence has to be waited for."""
        way_in = self._config.listen_port > 0 or settings.imap is not None
        return bool(settings.bounce_address) and settings.bounce_wait_s > 0 and way_in

    def message_id(self, transmission_id: int) -> str:
        """Of its mail, whichever spool carries it."""
        return self._verp.message_id(transmission_id, self._hostname)

    def busy(self, job: Job) -> Result:
        """It got no connection in time: put off."""
        return results.deferred(BUSY, job.settings, self._dice)

    # --- inside -----------------------------------------------------------------------------------
    @staticmethod
    def _sender(order: Order, settings: SmtpSettings) -> MailAddress:
        """The account's address, else the provider's."""
        if order.caller_id:
            name, address = order.caller_name, order.caller_id
        else:
            name, address = settings.from_name, settings.from_address
        return MailAddress(_wire_address(address, "source")[0], name)

    def _envelope(
        self,
        order: Order,
        message: MailMessage,
        sender: MailAddress,
        recipient: str,
        settings: SmtpSettings,
    ) -> Envelope:
        pattern = settings.bounce_address
        own = self._verp.address(pattern, order.spool_id) if pattern else sender.address
        return Envelope(
            sender=sender,
            to=MailAddress(recipient, message.to_name),
            reply_to=settings.reply_to,
            message_id=self.message_id(order.transmission_id),
            at=self._clock(),
            mail_from=own,
            envid=self._verp.token(order.spool_id),
        )

    async def _blueprint(self, form: MailForm) -> Blueprint:
        if (known := self._blueprints.get(form)) is not None:
            await trio.lowlevel.checkpoint()
            return known
        async with self._encoding.setdefault(form, trio.Lock()):
            if (known := self._blueprints.get(form)) is None:
                known = await trio.to_thread.run_sync(_encode, form, self._max_files_bytes)
                self._blueprints[form] = known
        return known


async def _signers_of(lane: Lane, settings: SmtpSettings, address: str) -> tuple[Signer, ...]:
    """Keys are parsed once; in a thread, an RSA key takes its time."""
    if not settings.dkim:
        return ()
    known, domain = lane.signers, address.rpartition("@")[2]
    if domain not in known:
        made = await trio.to_thread.run_sync(signers_for, settings.dkim, domain)
        if len(known) >= _KEYS_KEPT:
            known.clear()
        known[domain] = made
    return known[domain]


def _encode(form: MailForm, most_bytes: int) -> Blueprint:
    """In a thread: attachments are read and encoded; ``InvalidError`` where one is gone."""
    files: list[bytes] = []
    left = most_bytes
    for file in form.attachments:
        data = _read(file.path, left)
        left -= len(data)
        files.append(data)
    return Blueprint(form, files)


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise InvalidError("attachment: cannot be read", field="attachment") from error
    if len(data) > most_bytes:
        raise InvalidError("attachment: too large", field="attachment")
    return data


def _wire_address(text: str, field: str) -> tuple[str, str]:
    """The address with its domain in A-labels, and that domain."""
    address = plain(text)
    if address is None:
        raise InvalidError(f"{field}: not a mail address", field=field)
    local, _, domain = address.rpartition("@")
    try:
        domain = domain_ascii(domain)
    except InvalidError as error:
        raise InvalidError(f"{field}: {error}", field=field) from error
    return f"{local}@{domain}", domain


def _flags(settings: SmtpSettings) -> Flag:
    flags = Flag(0)
    if settings.unknown == "at_least_once":
        flags |= Flag.AT_LEAST_ONCE
    if settings.suppress:
        flags |= Flag.SUPPRESS
    return flags
