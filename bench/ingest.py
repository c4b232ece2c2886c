"""Import of contacts: CSV through HTTP into SQLite with ``synchronous=FULL``.

A node in a process of its own takes the file over a real socket. Beside it, in the same run, the
floor: Python's ``csv.reader`` alone on the same lines, and ``sqlite3``'s ``executemany`` alone on
the same rows, tables and chunks; and the memory of a node that took a tenth.
"""

from __future__ import annotations

import csv
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import trio
from rich.table import Table

from bench.node import config_for
from bench.report import Report, Target
from engine import clock
from engine.imports import CHUNK_ROWS
from engine.store import open_store
from engine.store.base import ContactRow

ROWS, SMOKE_ROWS = 1_000_000, 5000
TARGET_PER_S = 100_000
TARGET_LAG_MS = 15.0
TARGET_COMMIT_MS = 50.0
FLAT = 1.2
"""RSS at its peak may be this many times that of a node that took a tenth of the rows."""
PIECE_BYTES = 262_144
DEADLINE_S = 300.0

Row = tuple[str, ...]


async def run(smoke: bool) -> Report:  # noqa: FBT001 - the benches' common signature
    """Measure; ``smoke`` runs the same code on a few rows."""
    many = SMOKE_ROWS if smoke else ROWS
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "contacts.csv"
        await trio.to_thread.run_sync(write_csv, file, many // 10)
        few = await import_file(Path(folder) / "few", file, many // 10)
        await trio.to_thread.run_sync(write_csv, file, many)
        all_ = await import_file(Path(folder) / "many", file, many)
        alone = {
            "csv.reader": await trio.to_thread.run_sync(csv_alone, file),
            "executemany": await executemany_alone(Path(folder) / "alone", min(many, ROWS // 5)),
        }
    return _report(few, all_, alone)


def row(number: int) -> Row:
    """A contact as it comes out of a customer's database: every column but one filled."""
    return (
        f"+49{number:010d}", f"First{number % 1000}", f"Last{number}", f"user{number}@example.com",
        f"{number % 300} Main Street, Town", "gold", f"a{number % 7}", "", f"row {number}",
    )  # fmt: skip


def write_csv(path: Path, rows: int) -> None:
    """A file of contacts, every value quoted."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows(map(row, range(rows)))


# --- through the node ----------------------------------------------------------------------------
async def import_file(data_dir: Path, file: Path, rows: int) -> dict[str, Any]:
    """Import ``file`` into a new node; how fast, and what it did to the node."""
    size = (await trio.Path(file).stat()).st_size
    with trio.fail_after(DEADLINE_S):
        async with node(data_dir) as (process, lines):
            ready = orjson.loads(await anext(lines))
            url, admin = f"http://127.0.0.1:{ready['port']}", ("admin", ready["password"])
            async with httpx.AsyncClient(base_url=url, auth=admin, timeout=DEADLINE_S) as client:
                path = await _new_group(client)
                before_mb = forget_peak(process)
                cpu_s = spent_cpu_s(process)
                seconds = await _post(client, path, file, size, rows)
                cpu_s = spent_cpu_s(process) - cpu_s
            peak_mb = rss_mb(process, "VmHWM")
            assert process.stdin is not None  # noqa: S101 - it was opened with a pipe
            await process.stdin.aclose()
            seen: dict[str, Any] = orjson.loads(await anext(lines))
    return {
        "rows": rows,
        "seconds": seconds,
        "rows_per_s": rows / seconds,
        "megabytes_per_s": size / 1e6 / seconds,
        "rss_before_mb": before_mb,
        "rss_peak_mb": peak_mb,
        "cpu_us_a_row": cpu_s / rows * 1e6,
        **seen,
    }


async def _new_group(client: httpx.AsyncClient) -> str:
    """Where to post the file; the node has checked our password when this returns."""
    response = await client.post("/groups", json={"name": "bench"})
    return f"/groups/{response.raise_for_status().json()['group_id']}/csv"


async def _post(client: httpx.AsyncClient, path: str, file: Path, size: int, rows: int) -> float:
    """Seconds from the first byte to the answer, which comes when everything is durable."""
    headers = {"Content-Type": "text/csv", "Content-Length": str(size)}
    began = time.perf_counter()
    response = await client.post(path, content=_pieces(file), headers=headers)
    seconds = time.perf_counter() - began
    report = response.raise_for_status().json()
    if (report["imported"], report["rejected"]) != (rows, 0):
        raise RuntimeError(f"not all was imported: {report}")
    return seconds


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    async with await trio.open_file(path, "rb") as file:
        while piece := await file.read(PIECE_BYTES):
            yield piece


@asynccontextmanager
async def node(data_dir: Path) -> AsyncIterator[tuple[trio.Process, AsyncIterator[bytes]]]:
    """The child process, and the lines it prints; killed where it has not ended by itself."""
    command = [sys.executable, "-m", "bench.ingest_node", str(data_dir)]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None  # noqa: S101 - it was opened with a pipe
    try:
        yield process, Lines(process.stdout)
        await process.wait()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


class Lines(AsyncIterator[bytes]):
    """Lines of a stream."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._rest = b""

    async def __anext__(self) -> bytes:
        while b"\n" not in self._rest:
            if not (data := await self._stream.receive_some()):
                raise StopAsyncIteration
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def forget_peak(process: trio.Process) -> float:
    """Let VmHWM begin anew (proc(5), clear_refs): checking a password takes 64 MB for a moment."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return rss_mb(process, "VmRSS")


def rss_mb(process: trio.Process, field: str) -> float:
    """Resident memory of a process: now (VmRSS) or at most (VmHWM)."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} for {process.pid}")


def spent_cpu_s(process: trio.Process) -> float:
    """CPU seconds of a process so far, in user mode and in the kernel (proc(5), stat)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- the floor -----------------------------------------------------------------------------------
def csv_alone(path: Path) -> float:
    """Lines a second through Python's own CSV reader, nothing done with them."""
    began = time.perf_counter()
    with path.open(newline="") as file:
        count = sum(1 for _ in csv.reader(file))
    return count / (time.perf_counter() - began)


async def executemany_alone(data_dir: Path, rows: int) -> float:
    """Contacts and links a second, inserted by the driver's own loop with one commit a chunk."""
    config = config_for(data_dir)
    async with open_store(config, clock=clock.now):
        pass  # makes the tables
    return await trio.to_thread.run_sync(_executemany, data_dir / "outspool.db", rows)


def _executemany(database: Path, rows: int) -> float:
    names = ("id", "uid", "created_at", "updated_at", *ContactRow.__struct_fields__)
    contacts = f"INSERT INTO contact ({', '.join(names)}) VALUES (?{', ?' * (len(names) - 1)})"  # noqa: S608
    links = "INSERT INTO contact_link (group_id, contact_id) VALUES (1, ?)"
    made = [(n, n.to_bytes(16), 0, 0, *row(n)) for n in range(1, rows + 1)]
    connection = sqlite3.connect(database)
    connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
    began = time.perf_counter()
    for first in range(0, rows, CHUNK_ROWS):
        chunk = made[first : first + CHUNK_ROWS]
        connection.executemany(contacts, chunk)
        connection.executemany(links, [(one[0],) for one in chunk])
        connection.commit()
    seconds = time.perf_counter() - began
    connection.close()
    return rows / seconds


# --- the report ----------------------------------------------------------------------------------
def _report(few: dict[str, Any], many: dict[str, Any], alone: dict[str, float]) -> Report:
    columns = ("rows/s", "CPU us/row", "RSS MB before, peak", "chunk to disk ms",
               "write beside ms", "loop lag ms")  # fmt: skip
    table = Table("run", *columns, title="ingest (times: p50, p99, max)")
    for one in (few, many):
        table.add_row(
            f"{one['rows']:,} rows",
            f"{one['rows_per_s']:,.0f}",
            f"{one['cpu_us_a_row']:.1f}",
            f"{one['rss_before_mb']:.0f}, {one['rss_peak_mb']:.0f}",
            _three(one["chunk_commit_ms"]),
            _three(one["write_beside_ms"]),
            _three(one["loop_lag_ms"]),
        )
    for name, rate in alone.items():
        table.add_row(f"{name} alone", f"{rate:,.0f}")
    rate, growth = many["rows_per_s"], many["rss_peak_mb"] / few["rss_peak_mb"]
    targets = [
        Target("rows/s over HTTP", f">= {TARGET_PER_S}", rate, rate >= TARGET_PER_S),
        Target("RSS peak, all / a tenth", f"<= {FLAT}", growth, growth <= FLAT),
    ]
    for name, key, aim in (
        ("chunk to disk", "chunk_commit_ms", TARGET_COMMIT_MS),
        ("write beside it", "write_beside_ms", TARGET_COMMIT_MS),
        ("loop lag", "loop_lag_ms", TARGET_LAG_MS),
    ):
        measured = many[key]["p99"]
        targets.append(Target(f"{name} p99, ms", f"<= {aim}", measured, measured <= aim))
    results = {"few": few, "many": many, "alone_per_s": alone}
    return Report(name="ingest", results=results, targets=targets, tables=[table])


def _three(milliseconds: dict[str, float]) -> str:
    return ", ".join(f"{value:.1f}" for value in milliseconds.values())
