"""Ours in ``bench email``: ``python -m bench.email_ours PORT SECONDS KEY [CONNECTIONS]``.

The smtp gateway with its journal, as a node has it: tokens filled in, both texts encoded, signed
with the key in the file ``KEY`` ("" = not signed), intent before and answer after on the disk.
Orders come one a task, as a dispatcher gives them. Prints one JSON line.
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import trio

from api.log import configure
from bench.child import HOST, say
from bench.email_far import (
    CONNECTIONS,
    DOMAIN,
    HTML,
    PLAIN,
    SELECTOR,
    SENDER,
    SENDER_NAME,
    SUBJECT,
    address,
    values,
)
from bench.nobody import Nobody
from engine.config import Config, LogConfig, NodeConfig
from engine.gateway import Order
from engine.mail import MailForm, MailMessage
from engine.memory import settle
from engine.model import Contact, Provider, Service
from engine.programs import Material, bound
from engine.programs.sendemail import sendemail
from engine.results import Result
from engine.tokens import Context, Escape, compiled
from gateways.smtp.gateway import SmtpGateway

TASKS = 200
"""Orders in hand, as many as a provider of this type has channels by default."""


class Letters:
    """The next order, as often as asked."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._numbers = count(1)
        self._subject = compiled(SUBJECT, Escape.HEADER)
        self._body = compiled(HTML, Escape.HTML)
        self._plain = compiled(PLAIN)
        self._form = MailForm(body=self._body.fixed, body_alt=self._plain.fixed)

    def next(self) -> Order:
        """One recipient's."""
        number = next(self._numbers)
        given: dict[str, Any] = {**values(number)}
        context = Context(contact=Contact(**given))
        message = MailMessage(
            form=self._form,
            subject=self._subject.fill(context),
            to_name=f"First{number}",
            body=self._body.values(context),
            body_alt=self._plain.values(context),
        )
        return Order(
            spool_id=number,
            uid=UUID(int=number),
            service=Service.EMAIL,
            provider=self._provider,
            destination=address(number),
            program=bound(_send, Material(mail=message)),
            caller_id=SENDER,
            caller_name=SENDER_NAME,
            transmission_id=number,
        )


async def _send(mailer: Any, material: Material) -> None:
    if material.mail is None:
        raise RuntimeError("no mail")
    await sendemail(mailer, material.mail)


async def measure(port: int, seconds: float, key: str, connections: int) -> dict[str, Any]:
    """Send for so long; how many were taken, and how long it took."""
    with tempfile.TemporaryDirectory() as folder:
        gateway = SmtpGateway(Config(node=NodeConfig(data_dir=folder)))
        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.run, Nobody())
            provider = relay(port, key, connections)
            await gateway.providers({provider.id: provider})
            settle()
            letters, begun = Letters(provider), time.perf_counter()
            accepted = await _all(gateway, letters, begun + seconds)
            spent = time.perf_counter() - begun
            nursery.cancel_scope.cancel()
    return {"sent": accepted, "seconds": spent}


def relay(port: int, key: str, connections: int = CONNECTIONS) -> Provider:
    """The sink as a provider; ``key`` is a file, "" = unsigned."""
    name = f"{SELECTOR}._domainkey.{DOMAIN}"
    signed = {name: {"private_key": Path(key).read_text()}} if key else {}
    return Provider(
        id=1, name="far", type="smtp", service=Service.EMAIL, host=HOST, port=port,
        transport="tcp",
        settings={
            "starttls": "never",
            "connections": connections,
            "messages_per_connection": 100_000,
            "dkim": signed,
        },
    )  # fmt: skip


async def _all(gateway: SmtpGateway, letters: Letters, until: float) -> int:
    accepted = 0

    async def one() -> None:
        nonlocal accepted
        while time.perf_counter() < until:
            fate = await gateway.deliver(letters.next(), _unseen)
            if not isinstance(fate, Result) or fate.cause != "accepted":
                raise RuntimeError(f"not accepted: {fate}")
            accepted += 1

    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(one)
    return accepted


def _unseen(*_: Any) -> None:
    pass


def main() -> None:
    """Command line of the child process."""
    configure(LogConfig(level="error"))  # standard output is the bench's
    port, seconds, key, *more = sys.argv[1:]
    connections = int(more[0]) if more else CONNECTIONS
    say(trio.run(partial(measure, int(port), float(seconds), key, connections)))


if __name__ == "__main__":
    main()
