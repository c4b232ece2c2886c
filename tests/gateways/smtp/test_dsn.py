"""Reports of delivery: Postfix 3.7's own (``dsns/``), and what others or nobody would write."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.smtp.dsn import MAX_RECIPIENTS, report_of
from gateways.smtp.guess import MAX_OCTETS, guessed
from gateways.smtp.mime import read
from gateways.smtp.parsed import ParsedBounce, ParsedRecipient
from tests.gateways.smtp.corpus import mail, mixed, part

DSNS = Path(__file__).parent / "dsns"


def bounce_of(raw: bytes) -> ParsedBounce | None:
    return read(raw, lambda *_: None, guessed).bounce


def recorded(name: str) -> ParsedBounce:
    found = bounce_of((DSNS / f"postfix_{name}.eml").read_bytes())
    assert found is not None
    assert not found.heuristic
    assert found.envid == "token123"
    assert found.original_message_id == "<o1f.abc@example.org>"
    return found


def test_two_that_failed() -> None:
    both = ("max+x@example.net", "zoe@example.net")
    assert recorded("two_failed").recipients == tuple(
        ParsedRecipient(address, "failed", "5.1.1", f'unknown user: "{address}"')
        for address in both
    )


def test_one_that_was_delivered_is_not_final() -> None:
    [one] = recorded("delivered").recipients
    assert (one.action, one.status, one.final) == ("delivered", "2.0.0", False)


def test_expiry_is_final_with_a_temporary_status() -> None:
    [one] = recorded("expired").recipients  # messaging.md 22
    assert one.action == "failed"
    assert one.status.startswith("4.")
    assert one.final


def test_addresses_in_any_script_come_as_they_are() -> None:
    [one] = recorded("utf8").recipients  # message/global-delivery-status, RFC 6533
    assert one.address == "jörg@example.net"


def report(*blocks: bytes, returned: bytes = b"") -> ParsedBounce | None:
    head = b"Reporting-MTA: dns; x\r\nOriginal-Envelope-Id: e1\r\n"
    return report_of(b"\r\n".join([head, *blocks]), returned)


def block(**fields: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items()]
    return "".join(lines).encode()


FAILED = {"Final_Recipient": "rfc822; a@b.example", "Action": "failed", "Status": "5.1.1"}


def test_a_delay_is_not_final() -> None:
    found = report(block(**{**FAILED, "Action": "Delayed (4 hours)"}))
    assert found is not None
    [one] = found.recipients
    assert (one.action, one.final) == ("delayed", False)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"Original_Recipient": "rfc822;z@y.example"}, ("z@y.example", "5.1.1")),
        ({"Final_Recipient": "RFC822;<a@b.example>"}, ("a@b.example", "5.1.1")),
        ({"Final_Recipient": "a@b.example"}, ("a@b.example", "5.1.1")),
        ({"Final_Recipient": r"utf-8; j\x{F6}rg@b.example"}, ("jörg@b.example", "5.1.1")),
        ({"Final_Recipient": r"utf-8; a\x{D800}\x{0A}b"}, (r"a\x{D800}\x{0A}b", "5.1.1")),
        ({"Status": "5.1.1 (no such user)"}, ("a@b.example", "5.1.1")),
        ({"Status": "none"}, ("a@b.example", "")),
        ({"Status": "9.1.1"}, ("a@b.example", "")),
    ],
)
def test_fields_as_others_write_them(fields: dict[str, str], expected: tuple[str, str]) -> None:
    found = report(block(**{**FAILED, **fields}))
    assert found is not None
    [one] = found.recipients
    assert (one.address, one.status) == expected


def test_the_returned_mail_tells_which_it_was() -> None:
    found = report(
        block(**FAILED), returned=b"Subject: x\nMessage-ID:\n <1@b.example>\n\nMessage-ID: no"
    )
    assert found is not None
    assert found.original_message_id == "<1@b.example>"


def test_recipients_are_bounded() -> None:
    found = report(*[block(**FAILED)] * 5_000)
    assert found is not None
    assert len(found.recipients) == MAX_RECIPIENTS


@pytest.mark.parametrize("blocks", [[], [b""], [b"x"], [block(Action="failed")],
                                    [block(Final_Recipient="rfc822; a@b.example")]])  # fmt: skip
def test_what_names_nobody_reports_nothing(blocks: list[bytes]) -> None:
    assert report(*blocks) is None


@given(st.binary(max_size=400), st.binary(max_size=200))
def test_any_report_is_read(status: bytes, returned: bytes) -> None:
    found = report_of(status, returned)
    assert found is None or found.recipients


def test_a_report_within_ordinary_mail_is_no_bounce() -> None:
    status = part(b"message/delivery-status", b"Reporting-MTA: dns; x\r\n\r\n" + block(**FAILED))
    assert bounce_of(mixed(status)) is None
    assert bounce_of(mixed(status, kind=b"report")) is not None


# --- what is no RFC 3464 report
QMAIL = mail(
    b"From: MAILER-DAEMON@mx.example.net",
    b"Subject: failure notice",
    body=b"""Hi. This is the qmail-send program at mx.example.net.\r
I'm afraid I wasn't able to deliver your message to the following addresses.\r
This is a permanent error; I've given up. Sorry it didn't work out.\r
\r
<zoe@example.net>:\r
Sorry, no mailbox here by that name. (#5.1.1)\r
\r
--- Below this line is a copy of the message.\r
\r
Message-ID: <1@example.org>\r
""",
)


def test_a_bounce_in_prose_is_guessed() -> None:
    assert bounce_of(QMAIL) == ParsedBounce(
        heuristic=True, recipients=(ParsedRecipient("zoe@example.net", "failed"),)
    )


def test_prose_in_a_letter_is_no_bounce() -> None:
    letter = QMAIL.replace(b"MAILER-DAEMON", b"max").replace(b"failure notice", b"Re: qmail")
    assert bounce_of(letter) is None


def test_a_big_bounce_is_not_guessed_about() -> None:
    assert guessed(QMAIL) is not None
    assert guessed(QMAIL + b"x" * MAX_OCTETS) is None


def test_what_says_nothing_is_no_bounce() -> None:
    assert guessed(mail(b"Subject: failure notice")) is None


def test_what_breaks_the_guessing_is_no_bounce() -> None:
    hostile = b"Content-Type: multipart/report; boundary=" + b"(" * 2000
    assert guessed(hostile + b"\r\n\r\n" + b"(" * 2000) is None
