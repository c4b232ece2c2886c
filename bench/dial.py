"""``python -m bench dial``: calls a second over real SIP, beside ``sipp -sn uac`` in the same run.

Both sides call the same ``sipp -sn uas``, which answers at once. Ours plays a short recording in
full over RTP and then says BYE. For each side the highest rate without a failed session is searched
(RFC 7502 §4); the ratio of the two is what counts, since it does not depend on the machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
import soundfile
import trio
from rich.table import Table

from bench.dial_node import whole_node
from bench.report import Report, Target
from bench.sip_load import (
    HOST,
    Side,
    Trial,
    best,
    family_cpu_s,
    paced,
    search,
    sipp_uac,
    sipp_uas,
)
from engine.config import SipConfig
from engine.gateway import Call, InboundText, Media, Order, Reception, Stage
from engine.gateway import Report as SpoolReport
from engine.mail import InboundMail
from engine.memory import settle
from engine.model import Provider, Service
from engine.programs.voicemessage import voicemessage
from engine.results import Result
from gateways.sip.gateway import SipGateway

BASELINE = "sipp uac"
GATEWAY = "sip gateway alone"
NODE = "whole node"
WANTED_RATIO = 0.10
WANTED_NODE_RATIO = 0.07
RECORDING_S = 0.04


class Effort(msgspec.Struct, frozen=True):
    """How long to look: seconds a trial, trials a side, workers made ready."""

    seconds: float
    steps: int
    workers: int


FULL = Effort(seconds=2.5, steps=7, workers=48)
SMOKE = Effort(seconds=0.5, steps=2, workers=12)


async def run(smoke: bool) -> Report:  # noqa: FBT001 - the signature of every bench
    """Measure all rows, one after the other, against one UAS."""
    effort = SMOKE if smoke else FULL
    rows: dict[str, list[Trial]] = {}
    async with sipp_uas() as port:
        rows[BASELINE] = await search(sipp_uac(port), 2000, effort.seconds, effort.steps)
        async with gateway_alone(port, effort.workers) as side:
            rows[GATEWAY] = await search(side, 250, effort.seconds, effort.steps)
        with tempfile.TemporaryDirectory() as folder:
            media = recording(Path(folder))
            async with whole_node(port, sip_config(effort.workers), media) as side:
                rows[NODE] = await search(side, 250, effort.seconds, effort.steps)
    return report(rows, {GATEWAY: WANTED_RATIO, NODE: WANTED_NODE_RATIO})


def sip_config(workers: int) -> SipConfig:
    """All workers made ready, one RTP thread (a second one only wakes up more often at this load).

    No tail after the recording: this far end has no jitter buffer. The ports are not those of a
    node on its defaults, which may be running beside.
    """
    return SipConfig(
        workers_min=workers,
        workers_max=workers,
        rtp_threads=1,
        rtp_port_min=10_000,
        rtp_port_max=17_999,
        playout_tail_s=0.0,
    )


class _Nobody:
    """An inbox into which nothing comes: the far end of this bench never calls."""

    async def report(self, reports: Sequence[SpoolReport]) -> None:
        raise AssertionError(reports)

    async def receive(self, message: InboundText) -> Reception:
        raise AssertionError(message)

    async def receive_mail(self, mail: InboundMail) -> Reception:
        raise AssertionError(mail)

    async def serves_mail(self, address: str) -> bool:
        raise AssertionError(address)


@asynccontextmanager
async def gateway_alone(port: int, workers: int) -> AsyncIterator[Side]:
    """The sip gateway without a store: an order in, a call, a result out."""
    gateway = SipGateway(sip_config(workers))
    with tempfile.TemporaryDirectory() as folder:
        program = partial(_play, recording(Path(folder)))
        async with trio.open_nursery() as nursery:
            await nursery.start(gateway.run, _Nobody())
            await _all_ready(gateway, workers)
            settle()
            provider = Provider(id=1, name="uas", host=HOST, port=port)
            yield paced(partial(_place, gateway, provider, program), family_cpu_s)
            nursery.cancel_scope.cancel()


async def _all_ready(gateway: SipGateway, workers: int) -> None:
    with trio.fail_after(60):
        while gateway.statistics()["slots_free"] < workers * 4:  # noqa: ASYNC110 - start-up only
            await trio.sleep(0.05)


async def _place(
    gateway: SipGateway,
    provider: Provider,
    program: Callable[[Call], Any],
    number: int,
    progress: Callable[[Stage], None],
) -> Result:
    order = Order(
        spool_id=number,
        uid=uuid4(),
        service=Service.VOICE,
        provider=provider,
        destination=str(number),
        program=program,
        caller_id="4930",
    )
    return await gateway.deliver(order, lambda stage, _at: progress(stage))


async def _play(media: Media, call: Call) -> None:
    await voicemessage(call, media)


def recording(folder: Path) -> Media:
    """Two RTP packets of noise."""
    path = folder / "noise.wav"
    samples = np.random.default_rng(1).integers(-9000, 9000, int(RECORDING_S * 8000))
    soundfile.write(path, samples.astype(np.int16), 8000, subtype="PCM_16")
    return Media(path, RECORDING_S)


def report(rows: dict[str, list[Trial]], wanted: dict[str, float]) -> Report:
    """The table; each row but the first is compared with the first."""
    table = Table(title=f"answered calls, {RECORDING_S * 1000:.0f} ms of RTP each (sipp: none)")
    for head in ("side", "calls/s", "failed", "ratio", "CPU/call", "PDD p50", "PDD p99"):
        table.add_column(head, justify="left" if head == "side" else "right")
    baseline = best(rows[BASELINE])
    results: dict[str, Any] = {}
    targets = []
    for name, trials in rows.items():
        found = best(trials)
        ratio = found.achieved / baseline.achieved if baseline.achieved else 0.0
        table.add_row(
            name, f"{found.achieved:,.0f}", str(found.failed), f"{ratio:.3f}",
            f"{found.cpu_us:.0f} µs", f"{found.pdd_p50_ms:.1f} ms", f"{found.pdd_p99_ms:.1f} ms",
        )  # fmt: skip
        results[name] = {
            **msgspec.to_builtins(found),
            "clean": found.clean,
            "ratio": ratio,
            "trials": msgspec.to_builtins(trials),
        }
        if name in wanted:
            aim = f">= {wanted[name]:.2f} x {BASELINE}, no failed session"
            targets.append(Target(name, aim, ratio, found.clean and ratio >= wanted[name]))
    return Report("dial", results, targets, [table])
