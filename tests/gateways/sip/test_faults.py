"""Processes killed under live calls: what the far end sees, what we say, what stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio

from engine.gateway import Stage
from engine.results import Blame, Disposition, Reached
from gateways.sip.gateway import SipGateway
from tests.gateways.sip.harness import SipHarness, config, running
from tests.suites.gateway_suite import Delivery, listen, play
from tests.support import wait_for_line, wait_until


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[SipHarness]:
    async with running(SipGateway(config())) as gateway:
        yield SipHarness(gateway, tmp_path)


def children(pid: int, module: str = "") -> list[int]:
    """All live descendants of a process whose command line names ``module``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/task/*/children"):
        try:
            parent, below = int(path.parts[2]), path.read_text().split()
        except OSError:
            continue  # it ended while we looked
        if parent == pid:
            for child in map(int, below):
                if module in _command(child):
                    found.append(child)
                found += children(child, module)
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def workers() -> list[int]:
    """Signalling workers of this process: children of its zygote."""
    (zygote,) = [p for p in children(os.getpid(), "pjsua.zygote") if _parent(p) == os.getpid()]
    return children(zygote)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def wait_gone(pids: list[int]) -> None:
    async def gone() -> bool:
        return not any(map(alive, pids))

    await wait_until(gone, f"end of {pids}")


async def test_a_worker_killed_in_mid_call_interrupts_its_calls_and_is_replaced(
    harness: SipHarness,
) -> None:
    async with harness.scenario("answer") as provider, trio.open_nursery() as nursery:
        delivery = Delivery(harness, provider, listen)
        nursery.start_soon(delivery.run)
        await delivery.reached[Stage.CONNECTED].wait()
        before = workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        with trio.fail_after(10):
            await delivery.done.wait()
        result = delivery.result
        assert result is not None
        assert (result.disposition, result.cause) == (Disposition.INTERRUPTED, "worker_died")
        assert (result.blame, result.reached) == (Blame.NODE, Reached.PERSON)
        assert harness.gateway.statistics()["rtp"]["sessions"] == 0

        async def all_missed() -> bool:
            return bool(harness.gateway.statistics()["worker_deaths"] == len(before))

        # The worker without a call is missed a moment later; a call given to it would be cut too.
        await wait_until(all_missed, "every death is noticed")
        again = await Delivery(harness, provider, partial(play, harness.media)).run()
    assert again.disposition is Disposition.ANSWERED
    assert harness.gateway.statistics()["worker_deaths"] == len(before)


async def test_a_dead_zygote_is_replaced_and_its_workers_go_on(harness: SipHarness) -> None:
    async with harness.scenario("answer") as provider, trio.open_nursery() as nursery:
        delivery = Delivery(harness, provider, partial(play, harness.long_media))
        nursery.start_soon(delivery.run)
        await delivery.reached[Stage.CONNECTED].wait()
        orphans = workers()
        (zygote,) = [p for p in children(os.getpid(), "pjsua.zygote") if _parent(p) == os.getpid()]
        os.kill(zygote, signal.SIGKILL)
        more = [Delivery(harness, provider, partial(play, harness.media)) for _ in range(8)]
        for one in more:
            nursery.start_soon(one.run)
        with trio.fail_after(20):
            for one in [delivery, *more]:
                await one.done.wait()
    for one in [delivery, *more]:
        assert one.result is not None
        assert one.result.disposition is Disposition.ANSWERED
    assert orphans


async def test_the_rtp_engine_killed_in_mid_call_ends_it_as_interrupted(
    harness: SipHarness,
) -> None:
    async with harness.hearing("answer") as (provider, peer), trio.open_nursery() as nursery:
        delivery = Delivery(harness, provider, partial(play, harness.long_media))
        nursery.start_soon(delivery.run)
        await peer.more(5)
        os.kill(harness.gateway.statistics()["rtp"]["pid"], signal.SIGKILL)
        with trio.fail_after(10):
            await delivery.done.wait()
        assert harness.sipp is not None
        await harness.sipp.wait_received("BYE")
    assert delivery.result is not None
    assert (delivery.result.disposition, delivery.result.cause) == (
        Disposition.INTERRUPTED, "media_lost",
    )  # fmt: skip


@pytest.mark.parametrize(("scenario", "goodbye"), [("answer", "BYE"), ("no_answer", "CANCEL")])
async def test_a_node_killed_leaves_neither_calls_nor_processes(
    harness: SipHarness, scenario: str, goodbye: str
) -> None:
    calls = 6
    async with harness.scenario(scenario) as provider:
        assert harness.sipp is not None
        node = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tests.gateways.sip.node", str(provider.port), str(calls)],
            stdout=subprocess.PIPE,
        )
        try:
            assert node.stdout is not None
            await wait_for_line(node.stdout, "up")
            family = children(node.pid)
            assert len(family) >= 4  # RTP engine, zygote, two workers
        finally:
            node.kill()
            await node.wait()
        await harness.sipp.wait_received(goodbye, calls)
        await wait_gone(family)
        counted = await harness.sipp.finish()
    assert counted["FailedCall"] == 0


async def test_cancelling_the_gateway_clears_the_calls_it_carries(tmp_path: Path) -> None:
    gateway = SipGateway(config())
    async with trio.open_nursery() as outer:
        async with running(gateway):
            harness = SipHarness(gateway, tmp_path)
            far = harness.scenario("answer")
            provider = await far.__aenter__()
            delivery = Delivery(harness, provider, listen)
            outer.start_soon(delivery.run)
            await delivery.reached[Stage.CONNECTED].wait()
            family = children(os.getpid(), "native.")
        assert harness.sipp is not None
        await harness.sipp.wait_received("BYE")
        await far.__aexit__(None, None, None)
        await delivery.done.wait()
    assert delivery.result is not None
    assert (delivery.result.disposition, delivery.result.cause) == (
        Disposition.CANCELLED, "shutdown",
    )  # fmt: skip
    await wait_gone(family)


async def test_dead_media_ends_the_call_only_where_asked(harness: SipHarness) -> None:
    async with harness.hearing("answer") as (provider, _):
        told = await Delivery(harness, provider, listen, media_timeout_s=0.5).run()
        off = await Delivery(harness, provider, listen, call_limit_s=1.5).run()
    assert (told.disposition, told.cause) == (Disposition.ANSWERED, "media_timeout")
    assert off.cause == "call_limit"
