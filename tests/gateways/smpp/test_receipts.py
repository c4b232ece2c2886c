"""Receipts as SMSCs write them (messaging.md 13), and what only looks like one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.smpp.pdu import Address, ShortMessage, Tag
from gateways.smpp.receipts import parse, state_of
from gateways.smpp.records import Receipt, ReceiptState
from gateways.smpp.settings import SmppSettings

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
SETTINGS = SmppSettings()
OPEN = SmppSettings(receipts_without_class=True)
TYPICAL = (
    "id:0123456789 sub:001 dlvrd:001 submit date:2611211200 done date:2611211201 stat:DELIVRD"
    " err:000 text:Hello there"
)


def deliver(text: str = "", **fields: Any) -> ShortMessage:
    source = fields.pop("source", Address("4917012345678", 1, 1))
    return ShortMessage(
        source=source,
        esm_class=fields.pop("esm_class", 0x04),
        octets=fields.pop("octets", text.encode("latin-1")),
        **fields,
    )


def read(message: ShortMessage, settings: SmppSettings = SETTINGS) -> Receipt:
    receipt = parse(message, settings, at=AT)
    assert receipt is not None
    return receipt


def test_the_typical_receipt() -> None:
    assert read(deliver(TYPICAL)) == Receipt(
        message_id="0123456789",
        state=ReceiptState.DELIVERED,
        handset="4917012345678",
        error="000",
        submitted="2611211200",
        done="2611211201",
        received_at=AT,
    )


@pytest.mark.parametrize(
    ("text", "message_id", "state", "error"),
    [
        ("ID:7 SUB:001 DLVRD:001 SUBMIT DATE:1 DONE DATE:2 STAT:DELIVRD ERR:000", "7", "D", "000"),
        ("id:7 sub:001 dlvrd:000 submitdate:1 donedate:2 stat:EXPIRED err:0c1", "7", "E", "0c1"),
        ("id:7 submit_date:1 done_date:2 stat:UNDELIV err:69", "7", "U", "69"),
        ("id:a:b-c stat:REJECTD err:1", "a:b-c", "R", "1"),
        ("id: 42 stat: DELIVRD err: 000", "42", "D", "000"),
        ("id:42 stat:DELIVRD", "42", "D", ""),
        ("stat:DELETED id:42", "42", "X", ""),
        ("id:42\nstat:DELIVRD\nerr:0", "42", "D", "0"),
        ("id:42,stat:DELIVRD,err:0", "42", "D", "0"),
        ("id:42 sub:001 dlvrd:001", "42", "D", ""),
        ("id:42 sub:001 dlvrd:000", "42", "?", ""),
        ("id:42 stat:Delivered", "42", "D", ""),
        ("id:42 stat:ENROUTE", "42", ">", ""),
        ("id:42 stat:ACCEPTD", "42", "A", ""),
        ("id:42 stat:WHATEVER err:9", "42", "?", "9"),
        ("stat:DELIVRD", "", "D", ""),
        ("", "", "?", ""),
    ],
)
def test_the_texts_that_are_seen(text: str, message_id: str, state: str, error: str) -> None:
    states = dict(zip("DEXUA?R>", ReceiptState, strict=True))
    receipt = read(deliver(text))
    assert receipt.message_id == message_id
    assert (receipt.state, receipt.error) == (states[state], error)


def test_the_users_own_words_fake_no_field() -> None:
    receipt = read(deliver("id:1 stat:UNDELIV text:id:2 stat:DELIVRD err:5"))
    assert (receipt.message_id, receipt.state) == ("1", ReceiptState.UNDELIVERABLE)
    assert receipt.error == ""
    assert read(deliver("id:1 Text:stat:DELIVRD")).state is ReceiptState.UNKNOWN


def test_the_first_of_two_fields_counts() -> None:
    assert read(deliver("id:1 id:2 stat:EXPIRED stat:DELIVRD")).message_id == "1"


@pytest.mark.parametrize("value", [b"ab:12\0", b"ab:12", b"ab:12\0rest"])
def test_parameters_come_before_the_text(value: bytes) -> None:
    tlvs = (
        (Tag.RECEIPTED_MESSAGE_ID, value),
        (Tag.MESSAGE_STATE, b"\x05"),
        (Tag.NETWORK_ERROR_CODE, b"\x03\x00\x21"),
        (Tag.USER_MESSAGE_REFERENCE, b"\x12\x34"),
    )
    receipt = read(deliver(TYPICAL, tlvs=tlvs))
    assert receipt.message_id == "ab:12"
    assert receipt.state is ReceiptState.UNDELIVERABLE
    assert receipt.error == "033"
    assert receipt.reference == 0x1234


def test_parameters_alone_are_enough() -> None:
    tlvs = ((Tag.RECEIPTED_MESSAGE_ID, b"7\0"), (Tag.MESSAGE_STATE, b"\x02"))
    receipt = read(deliver(tlvs=tlvs))
    assert (receipt.message_id, receipt.state) == ("7", ReceiptState.DELIVERED)


def test_parameters_of_a_wrong_length_leave_the_text() -> None:
    tlvs = (
        (Tag.RECEIPTED_MESSAGE_ID, b""),
        (Tag.MESSAGE_STATE, b""),
        (Tag.NETWORK_ERROR_CODE, b"\x03"),
        (Tag.USER_MESSAGE_REFERENCE, b"\1\2\3"),
    )
    receipt = read(deliver(TYPICAL, tlvs=tlvs))
    assert (receipt.message_id, receipt.state) == ("0123456789", ReceiptState.DELIVERED)
    assert (receipt.error, receipt.reference) == ("000", None)


def test_the_text_in_the_payload_parameter() -> None:
    assert read(deliver(tlvs=((Tag.MESSAGE_PAYLOAD, TYPICAL.encode()),))).error == "000"


def test_a_text_in_ucs2_and_one_behind_a_header() -> None:
    wide = deliver(octets=TYPICAL.encode("utf-16-be"), data_coding=8)
    assert read(wide).message_id == "0123456789"
    headed = deliver(octets=b"\x02\x70\x00" + TYPICAL.encode(), esm_class=0x44)
    assert read(headed).message_id == "0123456789"


@pytest.mark.parametrize("esm_class", [0x00, 0x40, 0x08, 0x10, 0x18])
def test_a_message_is_no_receipt_whatever_it_says(esm_class: int) -> None:
    assert parse(deliver(TYPICAL, esm_class=esm_class), SETTINGS, at=AT) is None


def test_receipts_without_class_are_taken_where_the_provider_writes_them() -> None:
    assert read(deliver(TYPICAL, esm_class=0), OPEN).message_id == "0123456789"
    for text in ("Yes, please", "id:5 is my number", "stat:DELIVRD", "Id: 5 text: stat:DELIVRD"):
        assert parse(deliver(text, esm_class=0), OPEN, at=AT) is None


def test_intermediate_notifications() -> None:
    assert read(deliver("id:5", esm_class=0x20)).state is ReceiptState.ENROUTE
    assert read(deliver("id:5 stat:DELIVRD", esm_class=0x20)).state is ReceiptState.DELIVERED


def test_states_by_number() -> None:
    assert [state_of(number) for number in (0, 9, 255)] == [None] * 3
    assert {state_of(number) for number in range(1, 9)} == set(ReceiptState)


octets = st.one_of(
    st.binary(max_size=254),
    st.lists(
        st.sampled_from(["id:", "stat:", "text:", "DELIVRD", " ", "submit date", ":", "é", "\0"])
    ).map(lambda words: "".join(words).encode("latin-1")),
)
tags = st.one_of(st.sampled_from(list(Tag)), st.integers(0, 0xFFFF))


@given(
    octets,
    st.lists(st.tuples(tags, st.binary(max_size=80)), max_size=6),
    st.integers(0, 255),
    st.integers(0, 255),
    st.sampled_from([SETTINGS, OPEN]),
)
def test_no_octets_are_too_strange(
    body: bytes,
    tlvs: list[tuple[int, bytes]],
    esm_class: int,
    coding: int,
    settings: SmppSettings,
) -> None:
    message = deliver(octets=body, tlvs=tuple(tlvs), esm_class=esm_class, data_coding=coding)
    receipt = parse(message, settings, at=AT)
    if receipt is None:
        assert esm_class & 0x3C not in (0x04, 0x20)
        return
    words = (receipt.message_id, receipt.error, receipt.submitted, receipt.done)
    assert all(len(word) <= 64 and word.isascii() and word.isprintable() for word in words)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64))
def test_every_id_comes_back_from_the_parameter(message_id: str) -> None:
    tlvs = ((Tag.RECEIPTED_MESSAGE_ID, message_id.encode() + b"\0"),)
    assert read(deliver("id:other stat:DELIVRD", tlvs=tlvs)).message_id == message_id
