"""The SMSCs as tests drive them: started and killed at will, with their own record of what came.

What a test believes about messages that left comes from here: the SMSC's codec read them, and it
wrote them down before it answered.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import orjson
import trio

from tests.support import LOCALHOST, wait_until
from tests.support.network import Host

HERE = Path(__file__).parent
NODE = ("node", str(HERE / "node_smsc.js"))
PERL = ("perl", str(HERE / "perl_smsc.pl"))
SYSTEM_ID = "outspool"
PASSWORD = "secret"  # noqa: S105 - of an SMSC that lives for one test
DEADLINE_S = 20.0
_CHUNK = 65_536


class Submit(msgspec.Struct, frozen=True, kw_only=True):
    """A submit_sm as the SMSC read it; ``part`` is (reference, total, number) of a long message.

    ``status`` is what it answered (0 = taken, and ``number`` is its id). ``pdu`` holds the octets
    as hexadecimal digits (node only).
    """

    number: int
    status: int
    destination: str
    source: str = ""
    source_ton: int = 0
    esm_class: int = 0
    data_coding: int = 0
    registered_delivery: int = 0
    reference: int | None = None
    part: tuple[int, int, int] | None = None
    text: str = ""
    pdu: str = ""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt the SMSC sent for message ``number``, and the status of its deliver_sm_resp."""

    number: int
    status: int


class Message(msgspec.Struct, frozen=True):
    """A message joined out of its parts; ``text`` lacks those that never came."""

    destination: str
    source: str
    text: str
    submits: tuple[Submit, ...]
    complete: bool


class Smsc:
    """A running SMSC."""

    def __init__(self, command: tuple[str, ...], folder: Path, options: dict[str, Any]) -> None:
        self._command = command
        self._record = folder / "record.jsonl"
        self._log = folder / "stderr.log"
        self._options = {
            "record": str(self._record),
            "system_id": SYSTEM_ID,
            "password": PASSWORD,
            **options,
        }
        self._process: trio.Process | None = None
        self._unread = bytearray()
        self._events: list[dict[str, Any]] = []
        self._tags = 0
        self.host: str = options.get("host", LOCALHOST)
        self.port = 0

    # --- the process

    async def start(self) -> None:
        """Start it and wait until it listens; the second time on the same port."""
        options = {**self._options, "port": self.port}
        with self._log.open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                [*self._command, orjson.dumps(options).decode()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._unread.clear()
        self._events.clear()
        self.port = (await self.wait_event("listening"))["port"]

    async def kill(self) -> None:
        """kill -9; what it recorded stays."""
        process = self._running
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await stream.aclose()

    async def restart(self) -> None:
        """kill -9 and start again: it receipts what it took and had no answer for."""
        await self.kill()
        await self.start()

    @property
    def _running(self) -> trio.Process:
        assert self._process is not None, "not started"
        return self._process

    async def tell(self, do: str, **arguments: Any) -> None:
        """One of its commands: release, unbind, drop, set."""
        assert self._running.stdin is not None
        await self._running.stdin.send_all(orjson.dumps({"do": do, **arguments}) + b"\n")

    async def wait_event(self, name: str) -> dict[str, Any]:
        """Its next event of this name; the others before it are dropped."""
        with trio.move_on_after(DEADLINE_S):
            while True:
                while self._events:
                    event = self._events.pop(0)
                    if event["event"] == name:
                        return event
                if not await self._read():
                    break
        raise AssertionError(f"the SMSC said no {name!r}: {self._log.read_text()[-2000:]}")

    async def _read(self) -> bool:
        assert self._running.stdout is not None
        chunk = await self._running.stdout.receive_some(_CHUNK)
        *lines, rest = bytes(self._unread + chunk).split(b"\n")
        self._events += [orjson.loads(line) for line in lines]
        self._unread[:] = rest
        return bool(chunk)

    # --- what it does and saw

    @property
    def provider(self) -> dict[str, Any]:
        """Fields of a provider that leads here."""
        return {
            "name": "smsc",
            "type": "smpp",
            "host": self.host,
            "port": self.port,
            "username": SYSTEM_ID,
            "password": PASSWORD,
        }

    async def send_text(self, source: str, destination: str, text: str, **fields: Any) -> int:
        """A handset's message to us; the status of our deliver_sm_resp (-1: nobody is bound)."""
        self._tags += 1
        message = {"source": source, "destination": destination, "text": text, "fields": fields}
        await self.tell("mo", tag=self._tags, **message)
        while True:
            event = await self.wait_event("answered")
            if event["tag"] == self._tags:
                status: int = event["status"]
                return status

    def submits(self) -> list[Submit]:
        """Every submit_sm, in the order it came."""
        return [msgspec.convert(entry, Submit) for entry in self._entries("submit")]

    def taken(self) -> list[Submit]:
        """Those it took."""
        return [submit for submit in self.submits() if submit.status == 0]

    def messages(self) -> list[Message]:
        """What it took, joined; in the order their first parts came."""
        return joined(self.taken())

    def receipts(self) -> list[Receipt]:
        """Every receipt we answered."""
        return [msgspec.convert(entry, Receipt) for entry in self._entries("receipt")]

    def delivered(self) -> set[int]:
        """Numbers of the messages whose receipt we took."""
        return {receipt.number for receipt in self.receipts() if receipt.status == 0}

    async def wait_taken(self, count: int, *, deadline_s: float = DEADLINE_S) -> None:
        """Wait until it has taken so many submit_sm."""

        async def enough() -> bool:
            return len(self._entries("submit")) >= count

        await wait_until(enough, f"{count} submit_sm at the SMSC", deadline_s=deadline_s)

    def _entries(self, kind: str) -> list[dict[str, Any]]:
        if not self._record.exists():
            return []
        # A kill may have cut the last line short.
        lines = self._record.read_bytes().split(b"\n")[:-1]
        return [entry for line in lines if (entry := orjson.loads(line))["kind"] == kind]


def joined(submits: list[Submit]) -> list[Message]:
    """Messages out of parts: a part that came before opens another message of the same key."""
    open_ones: dict[tuple[str, str, int, int], dict[int, Submit]] = {}
    groups: list[dict[int, Submit]] = []
    for submit in submits:
        if submit.part is None:
            groups.append({1: submit})
            continue
        reference, total, number = submit.part
        key = (submit.source, submit.destination, reference, total)
        group = open_ones.get(key)
        if group is None or number in group:
            group = open_ones[key] = {}
            groups.append(group)
        group[number] = submit
    return [_message(group) for group in groups]


def _message(group: dict[int, Submit]) -> Message:
    parts = tuple(group[number] for number in sorted(group))
    first = parts[0]
    total = first.part[1] if first.part else 1
    text = "".join(part.text for part in parts)
    return Message(first.destination, first.source, text, parts, len(parts) == total)


def statuses(submits: list[Submit]) -> Counter[int]:
    """How often it answered what."""
    return Counter(submit.status for submit in submits)


@asynccontextmanager
async def node_smsc(folder: Path, *, on: Host | None = None, **options: Any) -> AsyncIterator[Smsc]:
    """npm's ``smpp``, on a host of its own if given; the options are those of ``node_smsc.js``."""
    before: tuple[str, ...] = ()
    if on is not None:
        before, options["host"] = on.command, on.address
    async with _smsc((*before, *NODE), folder, options) as smsc:
        yield smsc


@asynccontextmanager
async def perl_smsc(folder: Path, **options: Any) -> AsyncIterator[Smsc]:
    """Debian's Net::SMPP; the options are those of ``perl_smsc.pl``."""
    async with _smsc(PERL, folder, options) as smsc:
        yield smsc


@asynccontextmanager
async def _smsc(
    command: tuple[str, ...], folder: Path, options: dict[str, Any]
) -> AsyncIterator[Smsc]:
    folder.mkdir(parents=True, exist_ok=True)
    smsc = Smsc(command, folder, options)
    await smsc.start()
    try:
        yield smsc
    finally:
        await smsc.kill()
