"""A bridge with one provider, and a desk where its answers arrive."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from engine.config import SmtpConfig
from engine.model import Provider
from gateways.smtp.bridge import Bridge
from gateways.smtp.loop import Loop
from gateways.smtp.manner import Manner
from gateways.smtp.mxorder import NoRoute
from gateways.smtp.records import Answer, At, How, Parcel, Route
from gateways.smtp.settings import SmtpSettings

BODY = b"Subject: hello\r\n\r\nOne line.\r\n"
PROVIDER_ID = 7


def parcel(number: int = 1, body: bytes = BODY, **more: Any) -> Parcel:
    """A mail of its own recipient."""
    given: dict[str, Any] = {
        "sender": "bounce@example.org",
        "recipient": f"b{number}@example.net",
        "domain": "example.net",
        "not_after": time.monotonic() + 60,
    }
    return Parcel(
        id=number, spool_id=1000 + number, size=len(body), chunks=(body,), **(given | more)
    )


def body(number: int) -> bytes:
    """A mail with its number for a subject."""
    return b"Subject: %d\r\n\r\nhello\r\n" % number


def subjects(mails: Sequence[bytes]) -> Counter[int]:
    """How often each of them is there."""
    return Counter(int(re.findall(rb"Subject: (\d+)", mail)[0]) for mail in mails)


def manner(port: int, **more: Any) -> Manner:
    """In the clear, with short time-outs."""
    given: dict[str, Any] = {
        "direct": False,
        "host": "127.0.0.1",
        "port": port,
        "hostname": "client.test",
        "starttls": "never",
        "connect_timeout_s": 5.0,
        "reply_timeout_s": 5.0,
        "dot_timeout_s": 5.0,
    }
    return Manner(**(given | more))


def settings(**more: Any) -> SmtpSettings:
    """In the clear, with short time-outs, one connection."""
    given: dict[str, Any] = {
        "starttls": "never",
        "connections": 1,
        "connect_timeout_s": 5.0,
        "reply_timeout_s": 5.0,
        "dot_timeout_s": 5.0,
    }
    return SmtpSettings(**(given | more))


class Desk:
    """Every answer in the order it came."""

    def __init__(self, loop: Loop) -> None:
        self.bridge = Bridge(loop, self.take)
        self.loop = loop
        self.answers: list[Answer] = []
        self.batches = 0
        self._came = trio.Event()

    def take(self, answers: Sequence[Answer]) -> None:
        """As a ledger does."""
        self.answers += answers
        self.batches += 1
        self._came.set()
        self._came = trio.Event()

    async def wait(self, number: int) -> list[Answer]:
        """The first so many answers, once they are there."""
        with trio.fail_after(60):
            while len(self.answers) < number:
                await self._came.wait()
        return self.answers[:number]

    async def send(self, *parcels: Parcel) -> list[Answer]:
        """Send these and wait for all that was sent so far."""
        before = len(self.answers)
        self.bridge.send(PROVIDER_ID, parcels)
        return (await self.wait(before + len(parcels)))[before:]

    async def handed_over(self) -> None:
        """The asyncio thread has all that was sent."""

        async def turn() -> None:
            pass

        await self.loop.run(turn)

    def pools(self) -> dict[str, Any]:
        """What the provider's pools say."""
        found: dict[str, Any] = self.bridge.statistics()["providers"][PROVIDER_ID]
        return found


def provider(port: int, **more: Any) -> Provider:
    """A relay."""
    given: dict[str, Any] = {"id": PROVIDER_ID, "name": "relay", "type": "smtp"}
    given["host"] = "127.0.0.1"
    return Provider(port=port, **(given | more))


async def leftovers() -> tuple[list[str], int]:
    """Tasks and sockets of the asyncio thread that should have ended; asyncio side."""
    for _ in range(3):
        await asyncio.sleep(0)  # sockets close with the loop's next turn
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    names = [str(task.get_coro()) for task in tasks]
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    own = 1  # the loop's own, through which other threads wake it
    return [name for name in names if "Bridge._keep" not in name], len(selector.get_map()) - own


@asynccontextmanager
async def crossing() -> AsyncIterator[Desk]:
    """A served loop and a bridge over it; nothing is left of the thread at the end."""
    loop = Loop()
    async with trio.open_nursery() as nursery:
        await nursery.start(loop.serve)
        desk = Desk(loop)
        yield desk
        with trio.fail_after(30):
            await desk.bridge.close(PROVIDER_ID, drain_s=0)
        assert desk.bridge.statistics()["out"] == 0
        assert desk.bridge.statistics()["doubles"] == 0
        assert loop.statistics()["errors"] == 0
        left = await loop.run(leftovers)
        assert left == ([], 0), left
        nursery.cancel_scope.cancel()
    assert [one.name for one in threading.enumerate() if one.name == "smtp-asyncio"] == []


@asynccontextmanager
async def relay(
    port: int, given: SmtpSettings | None = None, config: SmtpConfig | None = None, **more: Any
) -> AsyncIterator[Desk]:
    """The same, with a relay at this port."""
    async with crossing() as desk:
        config = config or SmtpConfig(hostname="client.test")
        desk.bridge.open(provider(port, **more), given or settings(), config)
        yield desk


# --- direct MX


class Table:
    """Routes of domains, as a test wants them."""

    def __init__(self, routes: Mapping[str, Sequence[int] | NoRoute]) -> None:
        self._routes = routes

    async def routes(self, domain: str, port: int, *, verify: bool = False) -> list[Route]:
        """As ``Resolver`` has them; the ports are its hosts."""
        found = self._routes[domain]
        if isinstance(found, NoRoute):
            raise found
        return [
            Route(host="127.0.0.1", port=port, name=f"mx{number}.{domain}", verify=verify)
            for number, port in enumerate(found)
        ]


def direct(desk: Desk, routes: Mapping[str, Sequence[int] | NoRoute], **more: Any) -> None:
    """Have the desk's provider send by MX; each domain's hosts are ports of this machine."""
    desk.bridge = Bridge(desk.loop, desk.take, routing=Table(routes))
    desk.bridge.open(provider(0, host=""), settings(**more), SmtpConfig(hostname="client.test"))


def to(domain: str, number: int) -> Parcel:
    """A mail to this domain."""
    return parcel(number, body(number), domain=domain, recipient=f"b@{domain}")


def facts(answer: Answer) -> tuple[At, How, int, str]:
    """Where it ended, how, with what code, and at which host."""
    return answer.at, answer.how, answer.code, answer.host
