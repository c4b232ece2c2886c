"""Which bounces are believed, and of what."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateways.smtp.bounces import Matcher
from gateways.smtp.intake import DROPPED, NOBODY, PUT_OFF, TAKEN
from gateways.smtp.parsed import Parsed, ParsedBounce, ParsedRecipient
from gateways.smtp.tracker import Bounce
from gateways.smtp.verp import Verp
from tests.gateways.smtp.incoming import ALICE, PATTERN, SENDER, Ledger
from tests.gateways.smtp.test_intake import House
from tests.gateways.smtp.test_verp import Keys

DEAD = "dead@example.net"
OURS = Verp(Keys())
THEIRS = Verp(Keys(b"theirs"))
TOKEN = OURS.address(PATTERN, 7)
FORGED = THEIRS.address(PATTERN, 7)
FAILED = ParsedRecipient(DEAD, "failed", "5.1.1", "550 5.1.1 unknown")


def _report(*recipients: ParsedRecipient, **fields: object) -> Parsed:
    bounce = ParsedBounce(recipients=recipients or (FAILED,), **fields)  # type: ignore[arg-type]
    return Parsed(bounce=bounce)


def _house(folder: Path, parsed: Parsed) -> House:
    house = House(folder, parsed)
    house.ledger.mails = {7: DEAD}
    house.ledger.spools = {70: 7}
    return house


def _envid(verp: Verp = OURS) -> Parsed:
    return _report(envid=verp.token(7))


def _message_id(verp: Verp = OURS) -> Parsed:
    return _report(original_message_id=verp.message_id(70, "example.org"))


@pytest.mark.parametrize(
    ("parsed", "to"),
    [
        (_report(), TOKEN),
        (_report(), TOKEN.upper()),
        (_envid(), ALICE),
        # The token decides, whatever else is in it.
        (_report(envid=OURS.token(8), original_message_id="<x@y>"), TOKEN),
        (_report(heuristic=True), TOKEN),
    ],
)
async def test_what_only_a_receiver_knows_is_believed(
    tmp_path: Path, parsed: Parsed, to: str
) -> None:
    house = _house(tmp_path, parsed)

    assert await house.intake.take(b"raw", "", [to]) == [TAKEN]
    assert house.ledger.bounces == [
        Bounce(
            spool_id=7,
            action="failed",
            status="5.1.1",
            diagnostic="550 5.1.1 unknown",
            recipient=DEAD,
            final=True,
        )
    ]
    assert house.post.mails == []


async def test_a_message_id_is_in_replies_and_archives_and_proves_nothing(tmp_path: Path) -> None:
    house = _house(tmp_path, _message_id())

    assert await house.intake.take(b"raw", "", [ALICE]) == [TAKEN]
    assert [(found.spool_id, found.proven) for found in house.ledger.bounces] == [(7, False)]


async def test_a_message_id_changes_nothing_where_there_is_a_token(tmp_path: Path) -> None:
    house = _house(tmp_path, _report(original_message_id=OURS.message_id(70, "example.org")))

    assert await house.intake.take(b"raw", "", [TOKEN]) == [TAKEN]
    assert [found.proven for found in house.ledger.bounces] == [True]


@pytest.mark.parametrize(
    ("parsed", "sender", "to"),
    [
        (_report(), "", ALICE),  # no token at all
        (_report(), "", FORGED),
        (_envid(THEIRS), "", ALICE),
        (_message_id(THEIRS), "", ALICE),
        (_envid(), SENDER, ALICE),  # bounces have the null sender
        (_report(), SENDER, TOKEN),
        (_report(envid=OURS.token(7), heuristic=True), "", ALICE),
        (_report(ParsedRecipient("other@example.net", "failed", "5.1.1", "")), "", TOKEN),
        (_report(envid=OURS.token(8)), "", ALICE),  # of nothing in the books
        (_report(original_message_id=OURS.message_id(71, "example.org")), "", ALICE),
    ],
)
async def test_what_is_made_up_changes_nothing(
    tmp_path: Path, parsed: Parsed, sender: str, to: str
) -> None:
    house = _house(tmp_path, parsed)

    [reply] = await house.intake.take(b"raw", sender, [to])

    assert house.ledger.bounces == []
    # It is mail like any other then: to Alice, to an address that nobody writes to, to nobody.
    assert reply == {ALICE: TAKEN, TOKEN: DROPPED, FORGED: NOBODY}[to]
    assert len(house.post.mails) == (to == ALICE)


@pytest.mark.parametrize("action", ["delayed", "delivered", "relayed", "expanded", "what"])
async def test_what_is_not_final_is_counted_and_no_more(tmp_path: Path, action: str) -> None:
    house = _house(tmp_path, _report(ParsedRecipient(DEAD, action, "4.4.1", "")))

    assert await house.intake.take(b"raw", "", [TOKEN]) == [DROPPED]
    assert house.ledger.bounces == []
    assert sum(house.intake.statistics()["reports"].values()) == 2


async def test_failed_is_final_with_a_status_of_4_too(tmp_path: Path) -> None:
    house = _house(tmp_path, _report(ParsedRecipient(DEAD, "failed", "4.4.1", "expired")))
    await house.intake.take(b"raw", "", [TOKEN])

    assert [(found.status, found.final) for found in house.ledger.bounces] == [("4.4.1", True)]


async def test_a_guess_without_a_code_is_a_failure_of_which_nothing_is_known(
    tmp_path: Path,
) -> None:
    house = _house(tmp_path, _report(ParsedRecipient(DEAD, "failed"), heuristic=True))
    await house.intake.take(b"raw", "", [TOKEN])

    assert [found.status for found in house.ledger.bounces] == ["5.0.0"]


async def test_of_a_report_about_several_the_one_of_ours_counts(tmp_path: Path) -> None:
    others = [ParsedRecipient(f"{n}@example.net", "failed", "5.2.2", "") for n in range(9)]
    house = _house(tmp_path, _report(*others, FAILED))

    assert await house.intake.take(b"raw", "", [TOKEN]) == [TAKEN]
    assert [found.recipient for found in house.ledger.bounces] == [DEAD]


async def test_a_bounce_that_is_faster_than_our_own_books_comes_again(tmp_path: Path) -> None:
    house = _house(tmp_path, _report())
    house.ledger.waiting = {7}
    assert await house.intake.take(b"raw", "", [TOKEN]) == [PUT_OFF]

    house.ledger.waiting.clear()
    assert await house.intake.take(b"raw", "", [TOKEN]) == [TAKEN]


async def test_an_automatic_answer_to_the_bounce_address_is_nobodys(tmp_path: Path) -> None:
    house = _house(tmp_path, Parsed(subject="On holiday", auto=True))

    assert await house.intake.take(b"raw", "", [TOKEN]) == [DROPPED]
    assert house.post.mails == []


def test_bounce_addresses_of_providers_that_are_gone_stay_known() -> None:
    matcher = Matcher(OURS, Ledger())
    matcher.serve([PATTERN])
    matcher.serve(["", "other.{token}@example.org"])

    assert matcher.token_of(TOKEN) == 7
    assert matcher.token_of(OURS.address("other.{token}@example.org", 8)) == 8


def test_bounce_addresses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateways.smtp.bounces.MAX_PATTERNS", 2)
    matcher = Matcher(OURS, Ledger())
    matcher.serve(["1{token}@e", "2{token}@e", "3{token}@e"])

    found = [matcher.token_of(OURS.address(f"{n}{{token}}@e", 7)) for n in (1, 2, 3)]
    assert found == [None, 7, 7]
