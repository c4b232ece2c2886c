"""Messages to our accounts: whose they are, what they ask for, kept before they are let go."""

from __future__ import annotations

import unicodedata
from datetime import timedelta

import msgspec
import structlog

from engine.bus import Bus
from engine.clock import Clock
from engine.config import Config, SmsConfig
from engine.do_not_contact import DoNotContacts
from engine.errors import InvalidError, UnavailableError
from engine.events import of_arrival
from engine.gateway import InboundText, Reception, TextKind
from engine.model import DoNotContact, Service, Text
from engine.results import ResultRow
from engine.screening import bare_number, masked, normalise_number
from engine.store.arrival import Arrival, Kept, Served
from engine.store.base import Store

log = structlog.get_logger("inbound")

PROGRAM = "receivesms"
ANONYMOUS = "anonymous"
"""The phone of a contact that sent no number; nothing can be sent to it."""

STOP, START = "stop", "start"

GONE = frozenset({"account_id", "program_id"})
"""What an arrival may name that was deleted since it was looked up."""

LOOKS = 2
"""How often it is looked up: an account may be edited between being found and being used."""

_TYPES = {TextKind.UNICODE: "unicode", TextKind.BINARY: "binary"}
_SUCCESS = ResultRow("application", "sms_receive", "success")


def keyword_of(text: str, words: SmsConfig) -> str:
    """``stop`` or ``start`` where the whole of a message is such a word, else "".

    Case, marks around it and ways to write the same letters do not count; where a word is both, it
    stops.
    """
    said = _plain(text)
    if not said:
        return ""
    if said in map(_plain, words.stop_words):
        return STOP
    return START if said in map(_plain, words.start_words) else ""


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(map(_letter, folded)).split())


def _letter(character: str) -> str:
    """Marks as blanks; characters that nobody sees as nothing."""
    match unicodedata.category(character)[0]:
        case "P" | "S":
            return " "
        case "C" if not character.isspace():
            return ""
        case _:
            return character


class Inbound:
    """Takes messages to our accounts."""

    def __init__(
        self,
        *,
        store: Store,
        config: Config,
        clock: Clock,
        bus: Bus,
        do_not_contact: DoNotContacts,
    ) -> None:
        self._store = store
        self._words = config.sms
        self._clock = clock
        self._bus = bus
        self._list = do_not_contact

    async def receive(self, message: InboundText) -> Reception:
        """See ``Inbox.receive``.

        The account is the one with the destination's number, its program the one of type receivesms
        that serves it. A keyword is obeyed whether or not anybody takes the message.
        """
        for _ in range(LOOKS):
            try:
                return await self._receive(message)
            except InvalidError as error:
                if error.field not in GONE:
                    raise
        raise UnavailableError("the account or its program is being changed")

    async def _receive(self, message: InboundText) -> Reception:
        served = await self._store.served(bare_number(message.destination), PROGRAM)
        taker = next((one for one in served if one.program_id is not None), None)
        keyword = self._keyword(message)
        if taker is not None and taker.program_id is not None:
            entry = self._entry(message, keyword, taker.owner_id) if keyword else None
            return await self._take(message, taker, taker.program_id, keyword, entry)
        # Several may send from one number, and nobody can say which of them is meant.
        owners = dict.fromkeys(one.owner_id for one in served) or (None,)
        for owner_id in owners if keyword else ():
            await self._obey(keyword, self._entry(message, keyword, owner_id))
        if keyword:
            return Reception.TAKEN
        log.info(
            "unwanted",
            provider_id=message.provider.id,
            destination=masked(message.destination),
            account_known=bool(served),
        )
        return Reception.UNWANTED

    def _keyword(self, message: InboundText) -> str:
        if message.kind is TextKind.BINARY or normalise_number(message.source) is None:
            return ""
        return keyword_of(message.text, self._words)

    @staticmethod
    def _entry(message: InboundText, keyword: str, owner_id: int | None) -> DoNotContact:
        """What a keyword closes or opens for an owner (None: for the node)."""
        return DoNotContact(
            address=bare_number(message.source),
            service=Service.SMS,
            reason=f"{keyword.upper()} by SMS",
            owner_id=owner_id,
        )

    async def _obey(self, keyword: str, entry: DoNotContact) -> None:
        if keyword == STOP:
            await self._list.forbid(entry)
        else:
            await self._list.allow(entry)

    async def _take(
        self,
        message: InboundText,
        account: Served,
        program_id: int,
        keyword: str,
        entry: DoNotContact | None,
    ) -> Reception:
        arrival = msgspec.structs.replace(
            _arrival(message, account, program_id),
            rows=_rows(message, keyword),
            forbids=entry if keyword == STOP else None,
            allows=entry if keyword == START else None,
        )
        kept = await self._store.receive(arrival)
        if kept is None:
            return Reception.REPEATED
        if arrival.forbids is not None:
            self._list.note(arrival.forbids)
        if arrival.allows is not None:
            self._list.forget(arrival.allows)
        self._tell(kept)
        return Reception.TAKEN

    def _tell(self, kept: Kept) -> None:
        if self._bus.listening:
            for event in of_arrival(kept, self._clock()):
                self._bus.publish(event)


def _rows(message: InboundText, keyword: str) -> tuple[ResultRow, ...]:
    """As ICTCore's sms_receive has them (specs/ictcore.md §5.3), and what the gateway knows."""
    asked = (ResultRow("sms", "keyword", keyword),) if keyword else ()
    return (_SUCCESS, *message.rows, *asked)


def _arrival(message: InboundText, account: Served, program_id: int) -> Arrival:
    within_s = message.repeat_within_s
    phone = message.source or ANONYMOUS
    name = f"SMS from {phone}"
    return Arrival(
        at=message.at,
        key=message.key,
        provider_id=message.provider.id,
        repeat_since=message.at - timedelta(seconds=within_s) if within_s > 0 else None,
        owner_id=account.owner_id,
        account_id=account.account_id,
        program_id=program_id,
        phone=phone,
        destination=message.destination,
        title=name,
        origin=PROGRAM,
        message=Text(name=name, type=_TYPES.get(message.kind, "plain"), data=message.text),
        node_id=message.provider.node_id,
    )
