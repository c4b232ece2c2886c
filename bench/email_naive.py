"""The library stack: EmailMessage, dkimpy, aiosmtplib: ``python -m bench.email_naive PORT S LOOP``.

``LOOP`` is ``trio`` (aiosmtplib through trio-asyncio) or ``asyncio``. Ten tasks with a connection
each that stays open. dkimpy reads the key for every signature: its interface takes no other.
"""

from __future__ import annotations

import asyncio
import html
import re
import sys
import time
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from itertools import count

import aiosmtplib
import dkim
import trio
import trio_asyncio

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
    private_key,
    values,
)

_TOKEN = re.compile(r"\[contact:(\w+)\]")
_HEADERS = [b"from", b"to", b"subject", b"date", b"message-id", b"mime-version", b"content-type"]


class Letters:
    """The next signed mail, as often as asked."""

    def __init__(self) -> None:
        self._numbers = count()
        self._key = private_key()

    def next(self) -> tuple[str, bytes]:
        """Its recipient and its octets."""
        number = next(self._numbers)
        given = values(number)
        message = EmailMessage(policy=SMTP)
        message["From"] = f"{SENDER_NAME} <{SENDER}>"
        message["To"] = address(number)
        message["Subject"] = _filled(SUBJECT, given)
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=DOMAIN)
        message.set_content(_filled(PLAIN, given))
        escaped = {key: html.escape(value) for key, value in given.items()}
        message.add_alternative(_filled(HTML, escaped), subtype="html")
        raw = message.as_bytes()
        signature = dkim.sign(
            raw, SELECTOR.encode(), DOMAIN.encode(), self._key,
            canonicalize=(b"relaxed", b"relaxed"), include_headers=_HEADERS,
        )  # fmt: skip
        return address(number), signature + raw


def _filled(text: str, given: dict[str, str]) -> str:
    return _TOKEN.sub(lambda found: given[found[1]], text)


def _client(port: int) -> aiosmtplib.SMTP:
    return aiosmtplib.SMTP(hostname=HOST, port=port, start_tls=False, timeout=30)


async def through_trio(port: int, seconds: float) -> int:
    """Ten Trio tasks; how many were answered."""
    letters, sent = Letters(), 0

    async def one(until: float) -> None:
        nonlocal sent
        client = _client(port)
        await trio_asyncio.aio_as_trio(client.connect)()
        while trio.current_time() < until:
            recipient, raw = letters.next()
            await trio_asyncio.aio_as_trio(client.sendmail)(SENDER, [recipient], raw)
            sent += 1
        await trio_asyncio.aio_as_trio(client.quit)()

    async with trio_asyncio.open_loop(), trio.open_nursery() as nursery:
        until = trio.current_time() + seconds
        for _ in range(CONNECTIONS):
            nursery.start_soon(one, until)
    return sent


async def on_asyncio(port: int, seconds: float) -> int:
    """Ten asyncio tasks; how many were answered."""
    letters, sent = Letters(), 0

    async def one(until: float) -> None:
        nonlocal sent
        client = _client(port)
        await client.connect()
        while time.perf_counter() < until:
            recipient, raw = letters.next()
            await client.sendmail(SENDER, [recipient], raw)
            sent += 1
        await client.quit()

    until = time.perf_counter() + seconds
    await asyncio.gather(*(one(until) for _ in range(CONNECTIONS)))
    return sent


def main() -> None:
    """Send for so many seconds; one JSON line."""
    port, seconds, loop = sys.argv[1:]
    begun = time.perf_counter()
    if loop == "trio":
        sent = trio.run(through_trio, int(port), float(seconds))
    else:
        sent = asyncio.run(on_asyncio(int(port), float(seconds)))
    spent = time.perf_counter() - begun
    say({"sent": sent, "seconds": spent})


if __name__ == "__main__":
    main()
