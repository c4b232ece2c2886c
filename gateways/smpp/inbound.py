"""Messages that come in: read, joined, made durable, answered.

By deliver_sm (SMPP 3.4 §4.6.1) or data_sm (§4.7.1).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from hashlib import blake2b
from typing import Any

import structlog
import trio

from engine.clock import Clock
from engine.errors import InvalidError, UnavailableError
from engine.gateway import InboundText, Inbox, Reception, TextKind
from engine.model import EPOCH, Provider
from engine.results import ResultRow
from gateways.smpp import parts, text
from gateways.smpp.events import Delivered
from gateways.smpp.journal import Journal
from gateways.smpp.parts import Label, Part, Set
from gateways.smpp.pdu import ShortMessage, Tag
from gateways.smpp.repeats import LATE_S, Repeats
from gateways.smpp.settings import SmppSettings

log = structlog.get_logger("smpp")

OK, RX_T_APPN, RX_P_APPN = 0x00, 0x64, 0x65
"""§5.1.3: it is ours; deliver it again; never deliver it again."""

INCOMPLETE_S = 4 * 3600.0
"""How long the parts of a message are waited for; then it is handed in without the others."""

SWEEP_S = 60.0
_SWEPT = 100
_SET_REPEAT_S = INCOMPLETE_S + 3600.0
_GAP = "…"
_STATUS = {
    Reception.TAKEN: OK,
    Reception.REPEATED: OK,
    # Nobody here wants it, now or later: an SMSC that tries again would only try in vain.
    Reception.UNWANTED: RX_P_APPN,
}

Asked = tuple[Hashable, Delivered]
"""A delivery and the connection it came by: anything that is one and the same while it lives."""


class Receiver:
    """The messages of one provider. ``run`` beside it hands in what stays incomplete."""

    def __init__(
        self,
        provider: Provider,
        settings: SmppSettings,
        journal: Journal,
        inbox: Inbox,
        clock: Clock,
    ) -> None:
        self._provider = provider
        self._settings = settings
        self._journal = journal
        self._inbox = inbox
        self._clock = clock
        # A dead connection is found out by an enquire_link that nobody answers.
        silence_s = settings.enquire_link_s + settings.response_timeout_s + LATE_S
        self._repeats = Repeats(settings.redelivery_s, silence_s, trio.current_time())
        self._counts: Counter[str] = Counter()

    def replace(self, provider: Provider, settings: SmppSettings) -> None:
        """The provider was edited: read what comes from now on by these settings."""
        self._provider = provider
        self._settings = settings
        self._repeats.redelivery_s = settings.redelivery_s

    def ended(self, session: Hashable) -> None:
        """A connection is over: what was answered on it shortly before may come again."""
        self._repeats.ended(session, trio.current_time())

    async def run(self) -> None:
        """Hand in long messages that wait for a part in vain, until cancelled."""
        while True:
            try:
                await self.sweep()
            except UnavailableError as error:
                log.warning("smpp.parts_wait", provider=self._provider.name, cause=str(error))
            await trio.sleep(SWEEP_S)

    async def handle(self, deliveries: Sequence[Asked]) -> list[int]:
        """Make them durable; the command_status to answer each with.

        Messages of one sender are taken in order, those of several at the same time.
        """
        statuses = [RX_T_APPN] * len(deliveries)
        lanes: dict[str, list[int]] = {}
        for place, (_, delivered) in enumerate(deliveries):
            lanes.setdefault(delivered.message.source.digits, []).append(place)

        async def take(places: list[int]) -> None:
            for place in places:
                statuses[place] = await self._status(*deliveries[place])

        async with trio.open_nursery() as nursery:
            for places in lanes.values():
                nursery.start_soon(take, places)
        return statuses

    async def _status(self, session: Hashable, delivered: Delivered) -> int:
        try:
            status = await self._take(session, delivered.message)
        except UnavailableError as error:
            log.warning("smpp.message_waits", provider=self._provider.name, cause=str(error))
            self._counts["put_off"] += 1
            return RX_T_APPN
        except InvalidError as error:
            status = self._refuse(error)
        self._counts["refused" if status else "taken"] += 1
        return status

    def _refuse(self, error: InvalidError) -> int:
        """Not storable, today or tomorrow."""
        log.warning("smpp.message_refused", provider=self._provider.name, field=error.field)
        return RX_P_APPN

    async def _take(self, session: Hashable, message: ShortMessage) -> int:
        decoded = text.decode(message, self._settings)
        key = key_of(message)
        if decoded.part is not None:
            reference, total, number = decoded.part
            label = Label(
                self._provider.id,
                message.source.digits,
                message.destination.digits,
                reference,
                total,
            )
            part = Part(number, key, decoded.coding, decoded.octets)
            return await self._take_part(label, part)
        within_s = self._repeats.asked(key, session, trio.current_time())
        try:
            status = await self._hand_in(
                source=message.source.digits,
                destination=message.destination.digits,
                text=decoded.text,
                kind=decoded.kind,
                key=key,
                repeat_within_s=within_s,
            )
        except BaseException:
            self._repeats.dropped(key)
            raise
        self._repeats.answered(key, session, trio.current_time())
        return status

    async def _take_part(self, label: Label, part: Part) -> int:
        now = self._now()
        since = now - _micros(self._settings.redelivery_s)
        put = await self._journal.write(
            partial(parts.put, label=label, part=part, now=now, repeats_since=since)
        )
        if put.repeated:
            self._counts["parts_repeated"] += 1
        return OK if put.whole is None else await self._hand_in_set(put.whole)

    async def _hand_in_set(self, found: Set) -> int:
        """A crash after the engine took it and before we know: the key tells it the second time."""
        words, kind = _joined(found, self._settings)
        rows = [ResultRow("sms", "parts", str(found.label.total))]
        if found.missing:
            rows.append(ResultRow("sms", "parts_missing", ",".join(map(str, found.missing))))
        try:
            status = await self._hand_in(
                source=found.label.source,
                destination=found.label.destination,
                text=words,
                kind=kind,
                key=_digest([part.key for part in found.parts]),
                repeat_within_s=_SET_REPEAT_S,
                rows=tuple(rows),
            )
        except InvalidError as error:
            status = self._refuse(error)
        at = self._now()
        await self._journal.write(partial(parts.done, set_id=found.id, at=at))
        return status

    async def _hand_in(self, **fields: Any) -> int:
        message = InboundText(provider=self._provider, at=self._clock(), **fields)
        reception = await self._inbox.receive(message)
        self._counts[reception.value] += 1
        return _STATUS[reception]

    async def sweep(self) -> None:
        """Hand in what waited too long as it is, forget what was done long ago."""
        now, provider_id = self._now(), self._provider.id
        by = now - _micros(INCOMPLETE_S)
        while found := await self._journal.write(
            partial(parts.overdue, provider_id=provider_id, came_by=by, limit=_SWEPT)
        ):
            for one in found:
                await self._hand_in_set(one)
            self._counts["incomplete"] += len(found)
        done_by = now - _micros(max(self._settings.redelivery_s, SWEEP_S))
        await self._journal.write(partial(parts.purge, provider_id=provider_id, done_by=done_by))

    def _now(self) -> int:
        return (self._clock() - EPOCH) // timedelta(microseconds=1)

    def statistics(self) -> dict[str, Any]:
        """What came in, by what became of it."""
        return {**self._counts, **self._repeats.statistics()}


def key_of(message: ShortMessage) -> str:
    """The same for the same message delivered again, whatever the SMSC writes beside it."""
    told = (
        Tag.MESSAGE_PAYLOAD, Tag.SAR_MSG_REF_NUM, Tag.SAR_TOTAL_SEGMENTS, Tag.SAR_SEGMENT_SEQNUM,
        Tag.USER_MESSAGE_REFERENCE,
    )  # fmt: skip
    return _digest(
        [
            message.source.digits,
            message.destination.digits,
            message.data_coding,
            message.esm_class & text.UDHI,
            message.octets,
            *(message.tlv(tag) for tag in told),
        ]
    )


def _digest(values: list[Any]) -> str:
    return blake2b(repr(values).encode(), digest_size=16).hexdigest()


def _joined(found: Set, settings: SmppSettings) -> tuple[str, TextKind]:
    """The text of the parts there are: a character may be cut between two of them."""
    said: list[str] = []
    kinds: list[TextKind] = []
    last = 0
    for run in _runs(found.parts):
        octets = b"".join(part.octets for part in run)
        words, kind = text.text_of(octets, run[0].coding, settings)
        if run[0].number != last + 1 and kind is not TextKind.BINARY:
            said.append(_GAP)
        said.append(words)
        kinds.append(kind)
        last = run[-1].number
    kind = TextKind.UNICODE if TextKind.UNICODE in kinds else kinds[0]
    if last != found.label.total and kind is not TextKind.BINARY:
        said.append(_GAP)
    return "".join(said), kind


def _runs(given: Sequence[Part]) -> Iterator[list[Part]]:
    """Parts that follow each other in the same coding."""
    ordered = enumerate(given)
    for _, run in itertools.groupby(ordered, lambda one: (one[1].number - one[0], one[1].coding)):
        yield [part for _, part in run]


def _micros(seconds: float) -> int:
    return int(seconds * 1_000_000)
