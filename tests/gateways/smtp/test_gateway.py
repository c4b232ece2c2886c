"""The gateway under load and under change: orders given up, providers edited, disks that refuse."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from engine.errors import InvalidError
from engine.gateway import Mailer, Program, Stage
from engine.mail import MailFile, MailForm
from engine.model import Service, Spool
from engine.results import Blame, Disposition, Reached, Result
from gateways.smtp import results
from gateways.smtp.gateway import SmtpGateway
from tests.gateways.smtp.desk import (
    GOOD,
    Delivery,
    causes,
    order_of,
    provider_of,
    recipients,
    running,
)
from tests.gateways.smtp.faulty import Peer, faulty_mta, hold
from tests.support import LOCALHOST, free_port, wait_until
from tests.support.mails import MAIL

MANY = 2000


# --- the usual way -------------------------------------------------------------------------------
async def test_two_thousand_at_once_each_once(tmp_path: Path) -> None:
    async with faulty_mta(GOOD) as mta, running(tmp_path, max_queue=100) as node:
        await node.provide(provider := provider_of(mta.port))
        all_ = [Delivery(order_of(provider, n)) for n in range(1, MANY + 1)]
        seen: list[int] = []
        async with trio.open_nursery() as nursery:
            for each in all_:
                nursery.start_soon(each.run, node.gateway)
            await all_[0].reached[Stage.CONNECTED].wait()
            seen.append(node.of()["queued"] + node.of()["pressing"] + node.of()["ready"])
        assert causes(all_) == {"accepted"}
        assert max(seen) <= 100
        assert len(set(recipients(mta))) == len(mta.mails) == MANY
        assert len(mta.peers) <= 10 + MANY // 100
        statistics = node.of()
        left = ("queued", "pressing", "ready", "committing", "in_flight", "unbooked")
        assert not any(statistics[name] for name in left)


async def test_each_result_goes_as_its_reply_comes(tmp_path: Path) -> None:
    """M26: who was answered is told, whatever becomes of the others on that connection."""
    answers = iter(["250 2.0.0 taken", "250 2.0.0 taken"])

    async def two_then_nothing(peer: Peer) -> None:
        word = next(answers, None)
        await (hold(peer) if word is None else peer.say(word))

    async with faulty_mta({"DOT": two_then_nothing}) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port, connections=1, dot_timeout_s=60.0))
        deliveries = [node.start(order_of(provider, n)) for n in (1, 2, 3)]
        await node.until(
            lambda: sum(each.done.is_set() for each in deliveries) == 2, "two are told"
        )
        assert len(mta.mails) == 3
        assert [each.done.is_set() for each in deliveries].count(False) == 1
        for each in deliveries:
            each.scope.cancel()


async def test_the_sender_is_the_accounts_else_the_providers(tmp_path: Path) -> None:
    async with faulty_mta(GOOD) as mta, running(tmp_path) as node:
        provider = provider_of(mta.port, from_address="desk@example.org", from_name="Desk")
        await node.provide(provider)
        await node.deliver(order_of(provider, 1))
        await node.deliver(order_of(provider, 2, caller_id="", caller_name=""))
        assert b"From: Ann <news@example.org>" in mta.mails[0]
        assert b"From: Desk <desk@example.org>" in mta.mails[1]


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"caller_id": ""}, "invalid_sender"),
        ({"caller_id": "not an address"}, "invalid_sender"),
        ({"caller_name": "Ann\r\nBcc: eve@example.org"}, "invalid_sender"),
        ({"destination": "zoe@exa mple.net"}, "invalid_address"),
        ({"destination": "zoe@example.net\r\nRCPT TO:<eve@example.net>"}, "invalid_address"),
        ({"destination": "zoe@example.net\0"}, "invalid_address"),
        ({"destination": ""}, "invalid_address"),
    ],
)
async def test_what_no_mail_can_say_is_refused_here(
    tmp_path: Path, fields: dict[str, Any], cause: str
) -> None:
    async with faulty_mta(GOOD) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port))
        delivery = await node.deliver(order_of(provider, 1, **fields))
        assert (delivery.result.cause, delivery.result.blame) == (cause, Blame.REQUEST)
        assert delivery.result.reached is Reached.NOTHING
        assert delivery.stages == []
        assert not mta.mails


async def test_an_attachment_that_is_gone(tmp_path: Path) -> None:
    gone = MailFile(path=tmp_path / "gone.pdf", name="gone.pdf", type="application/pdf", size=1)
    mail = msgspec.structs.replace(MAIL, form=MailForm(body=("<p>", "</p>"), attachments=(gone,)))

    async def program(mailer: Mailer) -> None:
        await mailer.send_mail(msgspec.structs.replace(mail, body_alt=()))

    async with faulty_mta(GOOD) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port))
        delivery = await node.deliver(order_of(provider, 1, program))
        assert delivery.result.cause == "invalid_message"
        assert (await node.deliver(order_of(provider, 2))).result.succeeded


async def test_mails_that_share_texts_and_files_are_encoded_once(tmp_path: Path) -> None:
    """Each single send has a form of its own: one that says the same is as good."""
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.7")

    def form() -> MailForm:
        file = MailFile(path=path, name="a.pdf", type="application/pdf", size=8)
        return MailForm(body=("<p>Hello ", "</p>"), attachments=(file,))

    def mail_of(form: MailForm) -> Program:
        mail = msgspec.structs.replace(MAIL, form=form, body_alt=())
        return lambda mailer: mailer.send_mail(mail)

    async with faulty_mta(GOOD) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port))
        first = form()
        assert (await node.deliver(order_of(provider, 1, mail_of(first)))).result.succeeded
        path.unlink()  # it is not read again
        assert (await node.deliver(order_of(provider, 2, mail_of(form())))).result.succeeded
        assert all(b"JVBERi0xLjc=" in mail for mail in mta.mails)
        del first


async def test_a_program_that_breaks_is_ours(tmp_path: Path) -> None:
    async def program(_: Mailer) -> None:
        raise RuntimeError("a bug")

    async with faulty_mta(GOOD) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port))
        delivery = await node.deliver(order_of(provider, 1, program))
        assert (delivery.result.cause, delivery.result.blame) == ("program_failed", Blame.NODE)


async def test_without_a_connection_in_time_it_is_put_off(tmp_path: Path) -> None:
    async with faulty_mta({"DOT": hold}) as mta, running(tmp_path) as node:
        provider = provider_of(mta.port, connections=1, queue_s=0.5, dot_timeout_s=60.0)
        await node.provide(provider)
        held = [node.start(order_of(provider, n)) for n in (1, 2)]
        with trio.fail_after(20):
            await held[0].reached[Stage.LEFT].wait()
            await held[1].reached[Stage.LEFT].wait()
        late = await node.deliver(order_of(provider, 3))
        assert (late.result.disposition, late.result.cause) == (Disposition.DEFERRED, "busy")
        assert late.result.reached is Reached.NOTHING
        assert late.stages == []
        for each in held:
            each.scope.cancel()


def test_settings_that_cannot_work_are_named() -> None:
    with pytest.raises(InvalidError) as error:
        SmtpGateway.check(SmtpGateway.__new__(SmtpGateway), provider_of(25, connections=0))
    assert error.value.field == "settings"


async def test_a_listener_that_cannot_work_stops_the_start(tmp_path: Path) -> None:
    with pytest.RaisesGroup(InvalidError, flatten_subgroups=True, allow_unwrapped=True) as errors:
        async with running(tmp_path, listen_port=free_port(), listen_require_tls=True):
            raise AssertionError("it runs")
    assert "listen_certificate" in str(errors.value.exceptions)


# --- providers that change -----------------------------------------------------------------------
async def test_a_provider_that_is_gone_tells_what_waits_at_once(tmp_path: Path) -> None:
    async with faulty_mta({"DOT": hold}) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port, connections=1, dot_timeout_s=1.0))
        all_ = [node.start(order_of(provider, n)) for n in range(1, 20)]
        with trio.fail_after(20):
            await (await mta.peer()).event("DOT").wait()
        await node.provide()
        with trio.fail_after(20):
            for each in all_:
                await each.done.wait()
        waited = [each for each in all_ if Stage.LEFT not in each.stages]
        assert waited
        assert causes(waited) == {"trunk_unavailable"}
        assert all(each.result.trunk_failed for each in waited)
        left = [each.result for each in all_ if Stage.LEFT in each.stages]
        assert {it.cause for it in left} <= {"unknown", "not_sent"}
        later = await node.deliver(order_of(provider, 99))
        assert later.result.trunk_failed


async def test_a_provider_edited_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async with faulty_mta(GOOD) as first, faulty_mta(GOOD) as second, running(tmp_path) as node:
        await node.provide(provider := provider_of(first.port, connections=2))
        all_ = [node.start(order_of(provider, n)) for n in range(1, 201)]
        with trio.fail_after(20):
            await all_[20].done.wait()
        await node.provide(provider_of(second.port, connections=2))
        with trio.fail_after(30):
            for each in all_:
                await each.done.wait()
        assert causes(all_) == {"accepted"}
        assert first.mails
        assert second.mails
        came = recipients(first) + recipients(second)
        assert len(set(came)) == len(came) == 200


async def test_a_provider_taken_away_and_given_back(tmp_path: Path) -> None:
    async with faulty_mta(GOOD) as mta, running(tmp_path) as node:
        provider = provider_of(mta.port)
        for n in range(1, 6):
            await node.provide(provider)
            assert (await node.deliver(order_of(provider, n))).result.succeeded
            await node.provide()
        assert len(mta.mails) == 5


async def test_a_relay_that_becomes_direct_mx(tmp_path: Path) -> None:
    """Its queues are of another kind: what waits is ordered anew, as another spool."""
    async with faulty_mta({"DOT": hold}) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port, connections=1, dot_timeout_s=1.0))
        all_ = [node.start(order_of(provider, n)) for n in range(1, 20)]
        with trio.fail_after(20):
            await (await mta.peer()).event("DOT").wait()
        await node.provide(msgspec.structs.replace(provider, host=""))
        with trio.fail_after(20):
            for each in all_:
                await each.done.wait()
        waited = [each.result for each in all_ if Stage.LEFT not in each.stages]
        assert waited
        assert {(it.cause, it.again) for it in waited} == {("not_sent", True)}


async def test_settings_nobody_could_save_close_the_provider_and_no_other(tmp_path: Path) -> None:
    async with faulty_mta(GOOD) as mta, running(tmp_path) as node:
        good, bad = provider_of(mta.port), provider_of(mta.port, 2, "bad", connections=0)
        await node.provide(good, bad)
        assert (await node.deliver(order_of(good, 1))).result.succeeded
        assert (await node.deliver(order_of(bad, 2))).result.trunk_failed


async def test_an_unreachable_provider_holds_nobody_up(tmp_path: Path) -> None:
    async with faulty_mta(GOOD) as mta, running(tmp_path) as node:
        good, dead = provider_of(mta.port), provider_of(free_port(), 2, "dead")
        await node.provide(good, dead)
        deliveries = [node.start(order_of(dead, n)) for n in range(100, 150)]
        assert (await node.deliver(order_of(good, 1))).result.succeeded
        with trio.fail_after(20):
            for each in deliveries:
                await each.done.wait()
        assert all(each.result.trunk_failed for each in deliveries)


async def test_what_is_wrong_with_a_mailbox_is_seen(tmp_path: Path) -> None:
    nobody = {"host": LOCALHOST, "port": free_port(), "username": "us", "tls": "never"}
    async with running(tmp_path) as node:
        await node.provide(provider_of(free_port(), imap=nobody))

        async def failed() -> bool:
            [box] = node.gateway.statistics()["entrance"]["mailboxes"].values()
            return "refused" in box["fault"]

        await wait_until(failed, "the mailbox says why it is not read")


# --- the end -------------------------------------------------------------------------------------
async def test_what_waits_when_the_node_stops_is_sent_by_the_next_start(tmp_path: Path) -> None:
    async with faulty_mta({"DOT": hold}) as mta:
        async with running(tmp_path) as node:
            provider = provider_of(mta.port, connections=1, dot_timeout_s=60.0)
            await node.provide(provider)
            all_ = [node.start(order_of(provider, n)) for n in range(1, 11)]
            with trio.fail_after(20):
                await (await mta.peer()).event("DOT").wait()
            for each in all_:
                each.scope.cancel()
        async with running(tmp_path) as node:
            spools = [Spool(id=n, transmission_id=n, service=Service.EMAIL) for n in range(1, 11)]
            known = dict(await node.gateway.recall(spools))
    (left,) = [fate for fate in known.values() if fate != results.not_sent()]
    assert isinstance(left, Result)
    assert (left.cause, left.reached) == ("unknown", Reached.PERSON)


async def test_a_lost_journal_says_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        spool = Spool(id=1, transmission_id=1, service=Service.EMAIL)
        assert dict(await node.gateway.recall([spool])) == {}


# --- disks ---------------------------------------------------------------------------------------
@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """The journal's files may not grow: nothing else in this process is written meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (path / "smtp-journal.db-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_while_the_disk_is_full_nothing_leaves_and_then_everything(tmp_path: Path) -> None:
    async with faulty_mta(GOOD) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port))
        with full_disk(tmp_path):
            all_ = [node.start(order_of(provider, n)) for n in range(1, 41)]
            await node.until(lambda: bool(node.of()["fault"]), "the journal refuses")
            assert not mta.mails
            assert not any(each.stages for each in all_)
        with trio.fail_after(20):
            for each in all_:
                await each.done.wait()
        assert causes(all_) == {"accepted"}
        assert len(set(recipients(mta))) == len(mta.mails) == 40


async def test_a_disk_that_is_full_when_the_answer_comes_delays_it(tmp_path: Path) -> None:
    answer = trio.Event()

    async def wait(peer: Peer) -> None:
        await answer.wait()
        await peer.say("250 2.0.0 taken")

    async with faulty_mta({"DOT": wait}) as mta, running(tmp_path) as node:
        await node.provide(provider := provider_of(mta.port))
        delivery = node.start(order_of(provider, 1))
        with trio.fail_after(20):
            await (await mta.peer()).event("DOT").wait()
        with full_disk(tmp_path):
            answer.set()
            await node.until(
                lambda: bool(node.gateway.statistics()["ledger"]["fault"]), "the journal refuses"
            )
            assert not delivery.done.is_set()
        with trio.fail_after(20):
            await delivery.done.wait()
        assert delivery.result.cause == "accepted"
        assert (await node.fates(1))[1] == delivery.result
