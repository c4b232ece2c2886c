"""What a link does with refusals, missing binds, other providers, givings-up and closing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.clock import now
from engine.config import SmppConfig
from engine.errors import UnavailableError
from engine.gateway import Messenger, Stage, TextMessage
from engine.model import Provider, Service, Spool
from engine.results import Awaiting, Blame, Disposition, Fate, Reached, Result, ResultRow
from gateways.smpp.intake import NoReceiver
from gateways.smpp.ledger import NoBooks
from gateways.smpp.line import Backoff
from gateways.smpp.link import Link
from gateways.smpp.pdu import Command
from gateways.smpp.records import Segment
from gateways.smpp.settings import SmppSettings
from gateways.smpp.tickets import Place, Ticket
from tests.gateways.smpp.desk import order_of, provider_of, running
from tests.gateways.smpp.faulty import Peer, faulty_smsc, pdu, submit_resp
from tests.gateways.smpp.test_link_faults import provider_at, send_all
from tests.gateways.smpp.victim import number_of
from tests.support import LOCALHOST, free_port
from tests.support.desk import Delivery
from tests.support.smsc.peers import node_smsc

LONG = "long " * 100


def refusing(*statuses: int) -> Any:
    """An SMSC that answers its first submit_sm with these statuses and takes the rest."""
    left = list(statuses)

    async def script(peer: Peer) -> None:
        await peer.bind()
        while (request := await peer.read()) is not None:
            if request.command == Command.SUBMIT_SM:
                await peer.send(submit_resp(request, left.pop(0) if left else 0))
            elif request.command in (Command.UNBIND, Command.ENQUIRE_LINK):
                await peer.send(pdu(request.command | 0x80000000, 0, request.sequence))

    return script


def fault_of(result: Result) -> str:
    """What its row says went wrong."""
    found = [row.data for row in result.rows if (row.type, row.name) == ("error", "error")]
    return found[0] if found else ""


def assert_put_off(fate: Fate) -> Result:
    """Nothing left: the next trunk may be tried at once, else it goes on later."""
    assert isinstance(fate, Result)
    assert (fate.disposition, fate.cause) == (Disposition.DEFERRED, "not_bound")
    assert fate.trunk_failed
    assert fate.later_s == SmppSettings().retry_s
    assert not fate.again
    return fate


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "disposition", "cause", "blame"),
    [
        (0x0B, Disposition.INVALID, "invalid_number", Blame.REQUEST),
        (0x0A, Disposition.REJECTED, "invalid_sender", Blame.REQUEST),
        (0x01, Disposition.REJECTED, "invalid_message", Blame.REQUEST),
        (0x65, Disposition.REJECTED, "refused", Blame.NETWORK),
    ],
)
async def test_a_final_refusal_is_the_result(
    tmp_path: Path, status: int, disposition: Disposition, cause: str, blame: Blame
) -> None:
    async with faulty_smsc(refusing(status)) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port)
        await node.provide(provider)
        result = await node.deliver(order_of(provider))
        assert isinstance(result, Result)
        assert (result.disposition, result.cause, result.blame) == (disposition, cause, blame)
        assert result.reached is Reached.NOTHING
        assert len(smsc.peers[0].submits()) == 1


async def test_what_is_refused_for_now_is_tried_again(tmp_path: Path) -> None:
    async with faulty_smsc(refusing(0x08, 0x64)) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port)
        await node.provide(provider)
        fate = await node.deliver(order_of(provider))
        assert isinstance(fate, Awaiting)
        assert fate.accepted_at is not None
        assert len(smsc.peers[0].submits()) == 3


async def test_after_so_many_tries_the_trunk_failed(tmp_path: Path) -> None:
    async with faulty_smsc(refusing(0x45, 0x45, 0x45)) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port, retries=1)
        await node.provide(provider)
        result = await node.deliver(order_of(provider))
        assert isinstance(result, Result)
        assert result.trunk_failed
        assert result.code == "0x00000045 ESME_RSUBMITFAIL"
        assert len(smsc.peers[0].submits()) == 2


async def test_a_table_of_the_provider_wins(tmp_path: Path) -> None:
    async with faulty_smsc(refusing(0x400, 0x400)) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port, statuses={"0x400": "permanent"})
        await node.provide(provider)
        result = await node.deliver(order_of(provider))
        assert isinstance(result, Result)
        assert (result.cause, result.code) == ("refused", "0x00000400")


async def test_a_throttled_message_goes_out_later_on_the_same_bind(tmp_path: Path) -> None:
    count = 12
    async with (
        node_smsc(tmp_path / "smsc", throttle_every=4) as smsc,
        running(tmp_path / "node") as node,
    ):
        provider = provider_of(smsc.provider)
        await node.provide(provider)
        await send_all(node, provider, count)
        await node.inbox.wait(*range(1, count + 1))
        assert {result.cause for result in node.inbox.results.values()} == {"delivered"}
        sent = Counter(message.destination for message in smsc.messages())
        assert sent == Counter(number_of(n) for n in range(1, count + 1))
        assert len(smsc.submits()) > count
        (line,) = node.of()["lines"]
        assert (line["throttlings"] > 0, line["binds"]) == (True, 1)


async def test_a_wrong_bind_state_is_mended_by_binding_again(tmp_path: Path) -> None:
    async with faulty_smsc(refusing(0x04)) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port)
        await node.provide(provider)
        fate = await node.deliver(order_of(provider))
        assert isinstance(fate, Awaiting)
        assert [len(peer.submits()) for peer in smsc.peers] == [1, 1]


async def test_a_refused_part_stops_the_others_and_is_not_repeated(tmp_path: Path) -> None:
    """The first part was taken and may arrive: the rest is given up, and nothing is sent again."""
    async with faulty_smsc(refusing(0, 0x0B)) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port, window=1)
        await node.provide(provider)
        result = await node.deliver(order_of(provider, LONG))
        assert isinstance(result, Result)
        assert (result.disposition, result.reached) == (Disposition.FAILED, Reached.PERSON)
        assert result.cause == "invalid_number"
        assert len(smsc.peers[0].submits()) < int(rows_of(result, "parts")[0])


def rows_of(fate: Result | Awaiting, name: str) -> list[str]:
    return [row.data for row in fate.rows if row.name == name]


# --- what SMPP cannot hold ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "cause", "words"),
    [
        ({"destination": "no number"}, "invalid_number", "not a telephone number"),
        ({"destination": "4917\x00"}, "invalid_number", "not a telephone number"),
        ({"caller_id": "a sender that is too long"}, "invalid_sender", "at most 11 letters"),
        ({"text": TextMessage(text="x" * 40_000)}, "invalid_message", "the provider takes 30"),
    ],
)
async def test_what_no_pdu_can_hold_is_refused_here(
    tmp_path: Path, fields: dict[str, Any], cause: str, words: str
) -> None:
    async with faulty_smsc(Peer.serve) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port)
        await node.provide(provider)
        delivery = Delivery(order_of(provider, **fields))
        result = await delivery.run(node.gateway)
        assert isinstance(result, Result)
        assert (result.cause, result.reached) == (cause, Reached.NOTHING)
        assert result.blame is Blame.REQUEST
        assert words in fault_of(result)
        assert result.code == "", "the far side said nothing, and is none the healthier for it"
        assert delivery.stages == []


# --- programs -------------------------------------------------------------------------------------


async def test_notes_of_the_program_are_kept(tmp_path: Path) -> None:
    async def program(messenger: Messenger) -> None:
        messenger.note(ResultRow("info", "before", "1"))
        await messenger.send_text(TextMessage(text="Hi"))
        messenger.note(ResultRow("info", "after", "2"))

    async with faulty_smsc(refusing()) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port)
        await node.provide(provider)
        fate = await node.deliver(order_of(provider, program=program))
        assert (rows_of(fate, "before"), rows_of(fate, "after")) == (["1"], ["2"])


async def test_a_program_that_fails_has_reached_as_far_as_it_got(tmp_path: Path) -> None:
    async def at_once(_: Messenger) -> None:
        raise RuntimeError("broken")

    async def later(messenger: Messenger) -> None:
        await messenger.send_text(TextMessage(text="Hi"))
        raise RuntimeError("broken")

    async with faulty_smsc(refusing()) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port)
        await node.provide(provider)
        first = await node.deliver(order_of(provider, program=at_once))
        second = await node.deliver(order_of(provider, program=later, spool_id=2))
        assert isinstance(first, Result)
        assert isinstance(second, Result)
        assert (first.cause, first.reached) == ("program_failed", Reached.NOTHING)
        assert (second.cause, second.reached) == ("program_failed", Reached.PERSON)


# --- no bind --------------------------------------------------------------------------------------


async def test_nobody_listens(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        provider = provider_at(free_port())
        await node.provide(provider)
        delivery = Delivery(order_of(provider, ring_timeout_s=0.3))
        result = await delivery.run(node.gateway)
        assert "refused" in fault_of(assert_put_off(result))
        assert delivery.stages == []
        assert node.of()["queue"] == 0


async def test_the_login_is_wrong(tmp_path: Path) -> None:
    async with node_smsc(tmp_path / "smsc") as smsc, running(tmp_path / "node") as node:
        fields = {**smsc.provider, "password": "wrong"}
        provider = provider_of(fields, reconnect_max_s=60.0)
        await node.provide(provider)
        result = await node.deliver(order_of(provider, ring_timeout_s=1.0))
        fault = fault_of(assert_put_off(result))
        assert fault == "bind refused: 0x0000000e ESME_RINVPASWD"
        (line,) = node.of()["lines"]
        assert line["alarm"]
        assert "ESME_RINVPASWD" in line["last_error"]
        binds = 0
        with trio.move_on_after(0.5):
            while True:
                await smsc.wait_event("bind")
                binds += 1
        assert binds == 1, "binding again and again locks the account"


async def test_what_had_left_in_part_is_not_put_off(tmp_path: Path) -> None:
    binds = iter((True,))

    async def script(peer: Peer) -> None:
        if next(binds, False):
            await peer.bind()
            (submit,) = await peer.expect_submits(1)
            await peer.send(submit_resp(submit))

    async with faulty_smsc(script) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port, window=1)
        await node.provide(provider)
        result = await node.deliver(order_of(provider, "x" * 1000, ring_timeout_s=0.3))
        assert isinstance(result, Result)
        assert (result.disposition, result.cause) == (Disposition.FAILED, "not_bound")
        assert (result.reached, result.later_s) == (Reached.PERSON, ())
        assert not result.trunk_failed
        assert fault_of(result)


async def test_messages_wait_for_a_bind_that_comes_in_time(tmp_path: Path) -> None:
    port = free_port()
    async with running(tmp_path) as node:
        provider = provider_at(port)
        await node.provide(provider)
        delivery = node.start(order_of(provider))
        listeners = await trio.open_tcp_listeners(port, host=LOCALHOST)

        async def serve(stream: trio.SocketStream) -> None:
            await refusing()(Peer(stream))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, listeners)
            await delivery.done.wait()
            assert isinstance(delivery.fate, Awaiting)
            nursery.cancel_scope.cancel()


# --- giving up ------------------------------------------------------------------------------------


async def test_cancelled_in_the_window_keeps_its_place_and_is_booked(tmp_path: Path) -> None:
    answer = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.bind()
        (submit,) = await peer.expect_submits(1)
        await answer.wait()
        await peer.send(submit_resp(submit))
        await peer.serve()

    async with faulty_smsc(script) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port, window=1)
        await node.provide(provider)
        async with trio.open_nursery() as nursery:
            first = Delivery(order_of(provider))
            nursery.start_soon(first.run, node.gateway)
            await first.reached[Stage.LEFT].wait()
            nursery.cancel_scope.cancel()
        second = node.start(order_of(provider, spool_id=2, destination="491700000002"))
        (line,) = node.of()["lines"]
        assert (line["window"], line["in_flight"]) == (1, 1)
        assert second.stages == []
        answer.set()
        await second.done.wait()
        assert len(smsc.peers[0].submits()) == 2
        assert node.of()["accepted"] == 2


async def test_cancelled_in_the_queue_never_leaves(tmp_path: Path) -> None:
    answer = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.bind()
        submits = await peer.expect_submits(1)
        await answer.wait()
        await peer.send(submit_resp(submits[0]))
        await peer.serve()

    async with faulty_smsc(script) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port, window=1)
        await node.provide(provider)
        first = node.start(order_of(provider))
        await first.reached[Stage.LEFT].wait()
        async with trio.open_nursery() as nursery:
            for n in range(2, 8):
                order = order_of(provider, spool_id=n, destination=number_of(n))
                nursery.start_soon(Delivery(order).run, node.gateway)
            await node.until(lambda: node.of()["queue"] + node.of()["journalled"] == 6)
            nursery.cancel_scope.cancel()
        last = node.start(order_of(provider, spool_id=9, destination=number_of(9)))
        answer.set()
        await last.done.wait()
        assert len(smsc.peers[0].submits()) == 2
        spools = [Spool(id=n, transmission_id=n, service=Service.SMS) for n in range(2, 8)]
        for fate in (await node.gateway.recall(spools)).values():
            assert isinstance(fate, Result)
            assert fate.again, "its intent was taken back"


async def test_the_queue_is_bounded_and_callers_wait(tmp_path: Path) -> None:
    async with running(tmp_path, max_queue=5) as node:
        provider = provider_at(free_port())
        await node.provide(provider)
        for n in range(1, 9):
            node.start(order_of(provider, spool_id=n, ring_timeout_s=0.5))
        await node.until(lambda: node.of()["held_back"] == 3)
        assert node.of()["queue"] == 5
        await node.until(lambda: node.gateway.statistics()["calls_up"] == 0)
        assert node.gateway.statistics()["deferred"] == 8


# --- other providers, the end ---------------------------------------------------------------------


async def test_another_password_drains_and_binds_anew(tmp_path: Path) -> None:
    count = 200
    async with (
        node_smsc(tmp_path / "smsc", response_delay_ms=20) as smsc,
        running(tmp_path / "node") as node,
    ):
        provider = provider_of(smsc.provider, window=10)
        await node.provide(provider)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, node, provider, count)
            for window in (5, 20):
                await smsc.wait_taken(50)
                await node.provide(provider_of(smsc.provider, window=window))
        await node.inbox.wait(*range(1, count + 1))
        assert {result.cause for result in node.inbox.results.values()} == {"delivered"}
        assert max(Counter(m.destination for m in smsc.messages()).values()) == 1


async def test_a_provider_that_is_gone_unbinds(tmp_path: Path) -> None:
    unbound = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.bind()
        request = await peer.expect(Command.UNBIND)
        await peer.send(pdu(Command.UNBIND_RESP, 0, request.sequence))
        unbound.set()

    async with faulty_smsc(script) as smsc, running(tmp_path) as node:
        provider = provider_at(smsc.port)
        await node.provide(provider)
        await node.bound()
        await node.provide()
        with trio.fail_after(5):
            await unbound.wait()
        assert_put_off(await node.deliver(order_of(provider)))


async def test_settings_that_are_wrong_bind_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        provider = provider_at(free_port(), no_such_setting=1)
        await node.provide(provider)
        assert_put_off(await node.deliver(order_of(provider)))


async def test_closing_waits_for_the_window_and_unbinds(tmp_path: Path) -> None:
    """What was written is answered and journalled; what was not is as if it had never been."""
    count = 30
    async with node_smsc(tmp_path / "smsc", response_delay_ms=200, receipt="held") as smsc:
        async with running(tmp_path / "node") as node:
            provider = provider_of(smsc.provider, window=10)
            await node.provide(provider)
            for n in range(1, count + 1):
                node.start(order_of(provider, spool_id=n, destination=number_of(n)))
            await smsc.wait_taken(1)
        async with running(tmp_path / "node") as node:
            spools = [Spool(id=n, transmission_id=n) for n in range(1, count + 1)]
            fates = await node.gateway.recall(spools)
        taken = {submit.destination for submit in smsc.taken()}
        assert 0 < len(taken) < count
        for n, fate in fates.items():
            if number_of(n) in taken:
                assert isinstance(fate, Awaiting), n
                assert fate.accepted_at is not None, n
            else:
                assert isinstance(fate, Result), n
                assert fate.again, n


async def test_a_lost_journal_is_not_taken_for_nothing_sent(tmp_path: Path) -> None:
    """Then nobody knows: the engine closes the spools as interrupted and repeats none."""
    spools = [Spool(id=n, transmission_id=n) for n in range(1, 4)]
    async with running(tmp_path) as node:
        assert await node.gateway.recall(spools) == {}
    async with running(tmp_path) as node:
        fates = await node.gateway.recall(spools)
    assert [fate.cause for fate in fates.values() if isinstance(fate, Result)] == ["not_sent"] * 3


async def test_closed_takes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        gateway = node.gateway
    result = await Delivery(order_of(provider_at(1))).run(gateway)
    assert isinstance(result, Result)
    assert result.cause == "gateway_closed"


# --- binds ----------------------------------------------------------------------------------------


async def test_a_pair_sends_on_one_and_hears_on_the_other(tmp_path: Path) -> None:
    async with (
        node_smsc(tmp_path / "smsc", receipt="before") as smsc,
        running(tmp_path / "node") as node,
    ):
        provider = provider_of(smsc.provider, bind="pair", binds=2)
        await node.provide(provider)
        await send_all(node, provider, 50)
        await node.inbox.wait(*range(1, 51))
        assert {result.cause for result in node.inbox.results.values()} == {"delivered"}
        binds = [line["bind"] for line in node.of()["lines"]]
        assert binds == ["transmitter", "receiver"] * 2


async def test_silence_is_asked_about_before_it_is_given_up(tmp_path: Path) -> None:
    async with (
        node_smsc(tmp_path / "smsc", receipt="none") as smsc,
        running(tmp_path / "node") as node,
    ):
        provider = provider_of(smsc.provider, receipt_wait_s=0.5, receipt_grace_s=0.5)
        await node.provide(provider)
        assert isinstance(await node.deliver(order_of(provider)), Awaiting)
        assert (await node.inbox.result(1)).cause == "delivered"


async def test_a_receipt_is_refused_while_the_journal_takes_nothing_else(tmp_path: Path) -> None:
    """The engine takes no reports: the journal keeps them and hands them in again."""
    async with node_smsc(tmp_path / "smsc") as smsc, running(tmp_path / "node") as node:
        node.inbox.fault = "store: full"
        provider = provider_of(smsc.provider)
        await node.provide(provider)
        await node.deliver(order_of(provider))
        await node.until(lambda: smsc.delivered() == {1})
        assert not node.inbox.results
        node.inbox.fault = ""
        assert (await node.inbox.result(1)).cause == "delivered"


# --- the link by itself ---------------------------------------------------------------------------


class FullBooks(NoBooks):
    """A journal on a disk that is full until it is told otherwise."""

    def __init__(self) -> None:
        self.full = True
        self.asked = trio.Event()

    async def intend(self, *_: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.asked.set()
        if self.full:
            raise UnavailableError("journal: full")


async def test_nothing_leaves_while_the_journal_takes_no_intents(tmp_path: Path) -> None:
    settled: list[Ticket] = []
    done = trio.Event()

    def on_settled(tickets: Sequence[Ticket]) -> None:
        settled.extend(tickets)
        if len(settled) == 20:
            done.set()

    async with faulty_smsc(refusing()) as smsc, trio.open_nursery() as nursery:
        books = FullBooks()
        link = link_to(provider_at(smsc.port), books)
        nursery.start_soon(link.run)
        await link.submit([segment_of(n) for n in range(20)], on_settled)
        await books.asked.wait()
        assert link.statistics()["journal_fault"] in ("", "journal: full")
        assert not smsc.peers[0].submits()
        books.full = False
        with trio.fail_after(10):
            await done.wait()
        assert [ticket.place for ticket in settled] == [Place.ACCEPTED] * 20
        assert [ticket.segment.spool_id for ticket in settled] == list(range(20))
        await link.close()


async def test_closing_settles_what_is_queued(tmp_path: Path) -> None:
    settled: list[Ticket] = []
    async with trio.open_nursery() as nursery:
        link = link_to(provider_at(free_port()), NoBooks())
        nursery.start_soon(link.run)
        await link.submit([segment_of(n) for n in range(20)], settled.extend)
        await link.close()
    assert {ticket.place for ticket in settled} == {Place.WITHDRAWN}
    assert len(settled) == 20


def link_to(provider: Provider, books: NoBooks) -> Link:
    return Link(
        provider,
        SmppSettings(window=5),
        config=SmppConfig(),
        books=books,
        clock=now,
        receiver=NoReceiver(),
    )


def segment_of(n: int) -> Segment:
    return Segment(spool_id=n, number=1, total=1, destination="1", reference=n, body=b"\0" * 20)


def test_waits_between_binds_grow_and_are_spread() -> None:
    settings = SmppSettings(reconnect_min_s=1.0, reconnect_max_s=8.0)
    backoff = Backoff(settings)
    for longest in (1.0, 2.0, 4.0, 8.0, 8.0):
        assert longest / 2 <= backoff.next_s() <= longest
    backoff.reset()
    assert backoff.next_s() <= 1.0
    backoff.slow()
    assert backoff.next_s() >= 4.0
