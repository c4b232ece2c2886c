"""Mails made in threads: verified by dkimpy, each with its own result, none left behind."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import dkim
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidError
from engine.mail import MailAddress, MailForm, MailMessage
from gateways.smtp.compose import Blueprint, Envelope
from gateways.smtp.dkim import Signer, signers_for
from gateways.smtp.press import BATCH, Press, PressJob, parcel_of
from gateways.smtp.records import Parcel
from gateways.smtp.settings import parse
from tests.support.mail.dkim_keys import Keys

KEYS = Keys("example.org")
SIGNERS = signers_for(parse({"dkim": KEYS.settings}).dkim, "example.org")
FORM = MailForm(body=("<p>Hello ", "</p>\n\n"), body_alt=("Hello ", "\n"))
BLUEPRINT = Blueprint(FORM, [])
NOW = datetime.fromtimestamp(int(time.time()) - 60, UTC)  # dkimpy compares with the clock


def job(
    number: int = 1,
    *,
    to: str = "b@example.net",
    subject: str = "Hello",
    name: str = "Pat",
    signers: tuple[Signer, ...] = (),
    blueprint: Blueprint = BLUEPRINT,
) -> PressJob:
    return PressJob(
        message=MailMessage(form=FORM, subject=subject, body=(name,), body_alt=(name,)),
        envelope=Envelope(
            sender=MailAddress("a@example.org", "Z\u00f6e"),
            to=MailAddress(to, name),
            message_id=f"<o{number}.x@example.org>",
            at=NOW,
            mail_from="b+x@bounces.example.org",
            envid="x",
        ),
        blueprint=blueprint,
        signers=signers,
        parcel_id=number,
        spool_id=10 * number,
        not_after=99.0,
    )


def verified(parcel: Parcel) -> bool:
    mail = dkim.DKIM(b"".join(parcel.chunks))
    return all(mail.verify(idx=index, dnsfunc=KEYS.txt) for index in range(len(SIGNERS)))


TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=60)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=80)


@settings(max_examples=1_000)
@given(subject=TEXTS, value=VALUES)
def test_what_a_blueprint_fills_in_is_signed_as_it_goes_out(subject: str, value: str) -> None:
    one = job(subject=subject, signers=SIGNERS)
    one.message = MailMessage(form=FORM, subject=subject, body=(value,), body_alt=(value,))
    assert len(SIGNERS) == 2
    assert verified(parcel_of(one))


def test_a_parcel_has_what_the_wire_needs() -> None:
    parcel = parcel_of(job(7, to="Pat@B\u00fccher.example"))
    assert (parcel.id, parcel.spool_id, parcel.not_after, parcel.envid) == (7, 70, 99.0, "x")
    assert (parcel.recipient, parcel.domain) == (
        "Pat@xn--bcher-kva.example",
        "xn--bcher-kva.example",
    )
    assert parcel.sender == "b+x@bounces.example.org"
    assert parcel.size == len(b"".join(parcel.chunks))
    assert not parcel.smtputf8
    assert all(not line.startswith(b".") for line in b"".join(parcel.chunks).split(b"\r\n"))


def test_a_local_part_of_another_script_needs_smtputf8() -> None:
    assert parcel_of(job(to="p\u00e4t@example.net")).smtputf8


@pytest.mark.parametrize("threads", [1, 2])
async def test_results_stand_where_their_jobs_stood(threads: int) -> None:
    press = Press(threads)
    jobs = [job(number, signers=SIGNERS) for number in range(3 * BATCH + 5)]
    made = await press.fill(jobs)
    assert [each.id for each in made if isinstance(each, Parcel)] == list(range(len(jobs)))
    assert all(isinstance(each, Parcel) and verified(each) for each in made)
    assert press.statistics() == {
        "threads": threads,
        "waiting": 0,
        "filled": len(jobs),
        "failed": 0,
    }
    press.close()


async def test_what_is_wrong_with_one_mail_is_no_matter_of_the_others() -> None:
    press = Press(2)
    bad = job(2, subject="a\r\nBcc: everybody@example.net")
    first, wrong, last = await press.fill([job(1), bad, job(3)])
    assert isinstance(first, Parcel)
    assert isinstance(last, Parcel)
    assert isinstance(wrong, InvalidError)
    assert wrong.field == "subject"
    assert press.statistics()["failed"] == 1
    press.close()


async def test_nothing_to_do_starts_no_thread() -> None:
    press = Press(2)
    assert await press.fill([]) == []
    assert press.statistics()["threads"] == 0
    press.close()


class Gate(Blueprint):
    """A form that takes as long as the test wants."""

    def __init__(self) -> None:
        super().__init__(FORM, [])
        self.begun = threading.Semaphore(0)
        self.open = threading.Semaphore(0)
        self.filled = 0

    def fill(self, *args: object, **kwargs: object) -> tuple[bytes, ...]:
        self.begun.release()
        self.open.acquire()
        self.filled += 1
        return (b"x\r\n",)


async def test_cancelling_waits_for_what_is_begun_and_begins_no_more() -> None:
    press, gate = Press(1), Gate()
    ended = trio.Event()

    async def order(scope: trio.CancelScope) -> None:
        with scope:
            await press.fill([job(number, blueprint=gate) for number in range(2 * BATCH)])
        ended.set()

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(order, scope)
        await trio.to_thread.run_sync(gate.begun.acquire)
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not ended.is_set()
        gate.open.release()
    assert scope.cancelled_caught
    assert gate.filled == 1
    assert press.statistics()["waiting"] == 0
    assert isinstance((await press.fill([job()]))[0], Parcel)
    press.close()


async def test_orders_of_several_providers_share_the_threads() -> None:
    press = Press(2)
    made: dict[int, list[Parcel | Exception]] = {}

    async def order(first: int) -> None:
        made[first] = await press.fill([job(first + number) for number in range(40)])

    async with trio.open_nursery() as nursery:
        for first in (0, 1_000, 2_000):
            nursery.start_soon(order, first)
    for first, parcels in made.items():
        ids = [each.id for each in parcels if isinstance(each, Parcel)]
        assert ids == list(range(first, first + 40))
    press.close()


async def test_closing_ends_the_threads_and_refuses_more() -> None:
    before = threading.active_count()
    press = Press(2)
    await press.fill([job()])
    assert threading.active_count() == before + 2
    press.close()
    assert threading.active_count() == before
    with pytest.raises(trio.ClosedResourceError):
        await press.fill([job()])
    press.close()
