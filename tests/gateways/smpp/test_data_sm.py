"""Bodies of data_sm: values, faults, and what receipts and texts in them say."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given

from gateways.smpp import data_sm, receipts, text
from gateways.smpp.pdu import Address, ProtocolError, ShortMessage, Tag
from gateways.smpp.records import ReceiptState
from gateways.smpp.settings import SmppSettings
from tests.gateways.smpp.strategies import data_messages, data_octets

NOW = datetime(2026, 11, 21, tzinfo=UTC)
MESSAGE = ShortMessage(
    service_type="CMT",
    source=Address("491700000001", 1, 1),
    destination=Address("ACME", 5, 0),
    esm_class=0x04,
    registered_delivery=1,
    data_coding=8,
    tlvs=((Tag.MESSAGE_PAYLOAD, b"\0H\0i"), (0x1400, b"")),
)
OCTETS = (
    b"CMT\0" b"\x01\x01491700000001\0" b"\x05\x00ACME\0" b"\x04\x01\x08"
    b"\x04\x24\0\x04\0H\0i" b"\x14\0\0\0"
)  # fmt: skip
SOURCE, DESTINATION, MODES, TLVS = 6, 21, 26, 29  # where the fields of OCTETS begin


def test_the_fields_in_the_order_of_the_wire() -> None:
    assert data_sm.decode(OCTETS) == MESSAGE


def test_the_shortest_body() -> None:
    assert data_sm.decode(bytes(10)) == ShortMessage()


def test_addresses_may_be_longer_than_those_of_a_deliver_sm() -> None:
    longest = Address("1" * 64)
    found = data_sm.decode(data_octets(ShortMessage(source=longest, destination=longest)))
    assert (found.source, found.destination) == (longest, longest)


@given(data_messages())
def test_what_was_written_is_read(message: ShortMessage) -> None:
    assert data_sm.decode(data_octets(message)) == message


@given(data_messages())
def test_a_body_cut_anywhere_is_refused_or_ends_between_parameters(message: ShortMessage) -> None:
    body = data_octets(message)
    for cut in range(len(body)):
        try:
            found = data_sm.decode(body[:cut])
        except ProtocolError:
            continue
        assert found == msgspec.structs.replace(message, tlvs=message.tlvs[: len(found.tlvs)])
        assert data_octets(found) == body[:cut]


FAULTY = {
    "nothing": (b"", 0x02),
    "service_type_without_end": (b"CMT", 0x02),
    "service_type_too_long": (b"SIXSIX" + OCTETS[3:], 0x15),
    "service_type_8_bit": (b"\xe9" + OCTETS[3:], 0x15),
    "source_too_long": (OCTETS[:SOURCE] + b"1" * 53 + OCTETS[SOURCE:], 0x0A),
    "source_8_bit": (OCTETS[:SOURCE] + b"\xc4" + OCTETS[SOURCE + 1 :], 0x0A),
    "source_without_end": (OCTETS[: SOURCE + 4], 0x02),
    "destination_too_long": (OCTETS[:DESTINATION] + b"1" * 61 + OCTETS[DESTINATION:], 0x0B),
    "destination_8_bit": (OCTETS[:DESTINATION] + b"\xc4" + OCTETS[DESTINATION + 1 :], 0x0B),
    "destination_without_end": (OCTETS[: MODES - 1], 0x02),
    "ends_before_the_modes": (OCTETS[:MODES], 0x02),
    "ends_in_the_modes": (OCTETS[: TLVS - 1], 0x02),
    "tlv_without_length": (OCTETS + b"\0\x1e\0", 0xC0),
    "tlv_beyond_the_end": (OCTETS + b"\0\x1e\0\x03ab", 0xC0),
    "payload_beyond_the_end": (OCTETS[: TLVS + 6], 0xC0),
}


@pytest.mark.parametrize(("body", "status"), FAULTY.values(), ids=FAULTY)
def test_a_faulty_body_names_the_status_of_its_answer(body: bytes, status: int) -> None:
    with pytest.raises(ProtocolError) as fault:
        data_sm.decode(body)
    assert (fault.value.status, fault.value.fatal) == (status, False)


@pytest.mark.parametrize(
    "tlvs",
    [
        ((Tag.RECEIPTED_MESSAGE_ID, b"0a1b\0"), (Tag.MESSAGE_STATE, b"\5")),
        ((Tag.MESSAGE_PAYLOAD, b"id:0a1b sub:001 dlvrd:000 stat:UNDELIV err:034 text:"),),
        (
            (Tag.MESSAGE_PAYLOAD, b"stat:UNDELIV err:034 text:"),
            (Tag.RECEIPTED_MESSAGE_ID, b"0a1b"),
        ),
    ],
    ids=["parameters", "text", "both"],
)
def test_a_receipt_in_any_of_its_forms(tlvs: tuple[tuple[int, bytes], ...]) -> None:
    body = data_octets(msgspec.structs.replace(MESSAGE, data_coding=0, tlvs=tlvs))
    receipt = receipts.parse(data_sm.decode(body), SmppSettings(), at=NOW)
    assert receipt is not None
    assert (receipt.message_id, receipt.state) == ("0a1b", ReceiptState.UNDELIVERABLE)
    assert receipt.handset == "491700000001"


def test_its_payload_is_its_text() -> None:
    found = data_sm.decode(data_octets(msgspec.structs.replace(MESSAGE, esm_class=0)))
    assert text.decode(found, SmppSettings()).text == "Hi"
    nothing = data_sm.decode(data_octets(msgspec.structs.replace(MESSAGE, tlvs=())))
    assert text.decode(nothing, SmppSettings()).text == ""
