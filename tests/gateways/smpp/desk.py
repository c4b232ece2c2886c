"""The smpp gateway as the engine runs it, with an inbox that keeps what is handed in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import trio

from engine.config import Config, NodeConfig, SmppConfig
from engine.errors import UnavailableError
from engine.gateway import (
    InboundText,
    Messenger,
    Order,
    Program,
    Reception,
    Report,
    TextMessage,
)
from engine.model import Provider, Service
from engine.results import Fate, Result
from gateways.smpp.codec import decode_short_message
from gateways.smpp.gateway import SmppGateway
from gateways.smpp.pdu import Command, Pdu, Tag
from tests.gateways.smpp.faulty import pdu
from tests.support import desk
from tests.support.desk import DEADLINE_S, Delivery
from tests.support.inbox import NoMail

QUICK: dict[str, Any] = {
    "reconnect_min_s": 0.05,
    "reconnect_max_s": 0.2,
    "bind_timeout_s": 5.0,
    "response_timeout_s": 5.0,
    "unknown_wait_s": 1.0,
}
"""Settings with which tests do not wait long."""


class Inbox(NoMail):
    """``engine.gateway.Inbox`` that remembers; ``fault`` makes it refuse."""

    def __init__(self) -> None:
        self.results: dict[int, Result] = {}
        self.reports = 0
        self.texts: list[InboundText] = []
        self.fault = ""
        self._news = trio.Event()

    async def report(self, reports: Sequence[Report]) -> None:
        await self._taken()
        self.reports += len(reports)
        for report in reports:
            self.results.setdefault(report.spool_id, report.result)
        self._tell()

    async def receive(self, message: InboundText) -> Reception:
        await self._taken()
        self.texts.append(message)
        self._tell()
        return Reception.TAKEN

    async def _taken(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.fault:
            raise UnavailableError(self.fault)

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def result(self, spool_id: int) -> Result:
        """What was reported of the spool, as soon as it is."""
        await self.wait(spool_id)
        return self.results[spool_id]

    async def wait(self, *spool_ids: int) -> None:
        with trio.fail_after(DEADLINE_S):
            while not self.results.keys() >= set(spool_ids):
                await self._news.wait()


class Node(desk.Node[SmppGateway, Inbox]):
    """A running gateway."""

    async def bound(self, name: str = "smsc") -> None:
        """Wait until the provider is bound."""
        await self.until(lambda: self.of(name).get("bound", False), f"{name} bound")

    def of(self, name: str = "smsc") -> dict[str, Any]:
        """The provider's statistics."""
        return self.statistics_of(name)

    async def deliver(self, order: Order) -> Fate:
        return await Delivery(order).run(self.gateway)

    def start(self, order: Order) -> Delivery:
        """Deliver in the background."""
        delivery = Delivery(order)
        self.nursery.start_soon(delivery.run, self.gateway)
        return delivery


@asynccontextmanager
async def running(folder: Path, **smpp: Any) -> AsyncIterator[Node]:
    """A gateway with its journal in ``folder``; ``smpp`` are fields of ``[smpp]``."""
    folder.mkdir(parents=True, exist_ok=True)
    config = Config(node=NodeConfig(data_dir=str(folder)), smpp=SmppConfig(**smpp))
    gateway, inbox = SmppGateway(config), Inbox()
    async with trio.open_nursery() as nursery:
        await nursery.start(gateway.run, inbox)
        yield Node(gateway, inbox, nursery)
        nursery.cancel_scope.cancel()


def provider_of(fields: dict[str, Any], id_: int = 1, **settings: Any) -> Provider:
    """A provider row; ``settings`` on top of the quick ones."""
    return msgspec.convert(
        {"id": id_, "service": int(Service.SMS), **fields, "settings": {**QUICK, **settings}},
        Provider,
    )


def order_of(
    provider: Provider,
    text: str | TextMessage = "Hello",
    *,
    spool_id: int = 1,
    destination: str = "491700000001",
    program: Program | None = None,
    **fields: Any,
) -> Order:
    message = TextMessage(text=text) if isinstance(text, str) else text

    async def send(messenger: Messenger) -> None:
        await messenger.send_text(message)

    return Order(
        spool_id=spool_id,
        uid=uuid4(),
        service=Service.SMS,
        provider=provider,
        destination=destination,
        program=program or send,
        **{"caller_id": "4930123456", "ring_timeout_s": 5.0, **fields},
    )


def receipt_of(submit: Pdu, sequence: int, message_id: str, *, stat: str = "DELIVRD") -> bytes:
    """A deliver_sm that says ``stat`` of ``submit`` (§5.2.12, Appendix B)."""
    message = decode_short_message(submit.body)
    handset, sender = message.destination.digits.encode(), message.source.digits.encode()
    text = f"id:{message_id} sub:001 dlvrd:001 stat:{stat} err:000 text:".encode()
    reference = message.tlv(Tag.USER_MESSAGE_REFERENCE) or b""
    head = b"\0\1\1" + handset + b"\0\1\1" + sender + b"\0\x04\0\0\0\0\0\0\0\0"
    tlv = Tag.USER_MESSAGE_REFERENCE.to_bytes(2) + len(reference).to_bytes(2) + reference
    return pdu(Command.DELIVER_SM, 0, sequence, head + bytes((len(text),)) + text + tlv)
