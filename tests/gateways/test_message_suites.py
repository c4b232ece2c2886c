"""The gateways that carry short messages, by the suite each of them passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config, NodeConfig
from engine.model import Provider, Service
from gateways.loopback.gateway import LoopbackGateway
from gateways.smpp.gateway import SmppGateway
from gateways.smpp.pdu import Command, Pdu
from tests.gateways.smpp.desk import QUICK, receipt_of
from tests.gateways.smpp.faulty import Peer, faulty_smsc, pdu, submit_resp
from tests.suites.message_suite import MessageSuite, Network
from tests.suites.sending_suite import Inbox, running
from tests.support import LOCALHOST, free_port

_SCRIPTS: dict[Network, dict[str, Any]] = {
    Network.DELIVER: {"receipt_s": 0.05},
    Network.UNDELIVER: {"receipt_s": 0.05, "undelivered": 1.0},
    Network.ACCEPT: {"ring_s": 0.01},
    Network.REJECT: {"reject": 1.0},
    Network.UNKNOWN: {"invalid": 1.0},
    Network.SILENT: {"no_answer": 1.0},
    Network.UNAVAILABLE: {"fail": 1.0},
}


class LoopbackHarness:
    """Networks by script."""

    def __init__(self, gateway: LoopbackGateway, inbox: Inbox) -> None:
        self.gateway = gateway
        self.inbox = inbox

    @asynccontextmanager
    async def network(self, behaviour: Network) -> AsyncIterator[Provider]:
        settings = _SCRIPTS[behaviour]
        yield Provider(id=1, name="s", type="loopback", service=Service.SMS, settings=settings)


class TestLoopback(MessageSuite):
    """``tests.suites.message_suite``."""

    @pytest.fixture
    async def harness(self) -> AsyncIterator[LoopbackHarness]:
        gateway = LoopbackGateway(seed=1)
        async with running(gateway) as inbox:
            yield LoopbackHarness(gateway, inbox)


def _answers(request: Pdu, behaviour: Network) -> list[bytes]:
    """What an SMSC says to a submit_sm."""
    match behaviour:
        case Network.SILENT:
            return []
        case Network.REJECT:
            return [submit_resp(request, 0x65)]
        case Network.UNKNOWN:
            return [submit_resp(request, 0x0B)]
        case Network.ACCEPT:
            return [submit_resp(request)]
    stat = "DELIVRD" if behaviour is Network.DELIVER else "UNDELIV"
    receipt = receipt_of(request, request.sequence, f"id{request.sequence}", stat=stat)
    return [submit_resp(request), receipt]


class SmppHarness:
    """An SMSC for each network."""

    def __init__(self, gateway: SmppGateway, inbox: Inbox) -> None:
        self.gateway = gateway
        self.inbox = inbox

    @asynccontextmanager
    async def network(self, behaviour: Network) -> AsyncIterator[Provider]:
        async def script(peer: Peer) -> None:
            await peer.bind()
            while (request := await peer.read()) is not None:
                if request.command == Command.SUBMIT_SM:
                    await peer.send(*_answers(request, behaviour))
                elif request.command in (Command.UNBIND, Command.ENQUIRE_LINK):
                    await peer.send(pdu(request.command | 0x80000000, 0, request.sequence))

        async with faulty_smsc(script) as smsc:
            there = behaviour is not Network.UNAVAILABLE
            provider = Provider(
                id=1,
                name="smsc",
                type="smpp",
                service=Service.SMS,
                host=LOCALHOST,
                port=smsc.port if there else free_port(),
                transport="tcp",
                username="outspool",
                password="secret",  # noqa: S106 - of an SMSC that lives for one test
                settings={
                    **QUICK,
                    "response_timeout_s": 0.5,
                    "receipts": "none" if behaviour is Network.ACCEPT else "all",
                },
            )
            await self.gateway.providers({1: provider})
            yield provider
            await self.gateway.providers({})


class TestSmpp(MessageSuite):
    """``tests.suites.message_suite``."""

    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[SmppHarness]:
        gateway = SmppGateway(Config(node=NodeConfig(data_dir=str(tmp_path))))
        async with running(gateway) as inbox:
            yield SmppHarness(gateway, inbox)
