"""Bodies of PDUs to octets and back: values, refusals, faults, identity."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidError
from gateways.smpp import codec, names
from gateways.smpp.pdu import Address, Command, ProtocolError, ShortMessage, Tag
from gateways.smpp.settings import SmppSettings
from tests.gateways.smpp.strategies import short_messages, text

MESSAGE = ShortMessage(
    service_type="CMT",
    source=Address("ACME", 5, 0),
    destination=Address("491700000001", 1, 1),
    esm_class=0x40,
    protocol_id=1,
    priority=2,
    schedule_time="",
    validity_period="000001000000000R",
    registered_delivery=1,
    replace_if_present=3,
    data_coding=8,
    default_message_id=4,
    octets=b"\0H\0i",
    tlvs=((Tag.USER_MESSAGE_REFERENCE, b"\x12\x34"), (0x1400, b"")),
)
OCTETS = (
    b"CMT\0" b"\x05\x00ACME\0" b"\x01\x01491700000001\0" b"\x40\x01\x02" b"\0"
    b"000001000000000R\0" b"\x01\x03\x08\x04" b"\x04\0H\0i" b"\x02\x04\0\x02\x12\x34" b"\x14\0\0\0"
)  # fmt: skip


def test_the_fields_in_the_order_of_the_wire() -> None:
    assert codec.encode_short_message(MESSAGE) == OCTETS
    assert codec.decode_short_message(OCTETS) == MESSAGE


def test_the_shortest_body() -> None:
    assert codec.encode_short_message(ShortMessage()) == bytes(17)
    assert codec.decode_short_message(bytes(17)) == ShortMessage()


@given(short_messages())
def test_what_is_encoded_decodes_to_itself(message: ShortMessage) -> None:
    assert codec.decode_short_message(codec.encode_short_message(message)) == message


REFUSED = [
    ("service_type", "service_type", "SIXSIX"),
    ("service_type", "service_type", "A\0B"),
    ("source", "source", Address("1" * 21)),
    ("source", "source", Address("49\x00170")),  # the field after it would begin at 170
    ("source", "source", Address("Zürich")),
    ("source", "source", Address("1", ton=256)),
    ("source", "source", Address("1", npi=-1)),
    ("destination", "destination", Address("1" * 21)),
    ("destination", "destination", Address("\0")),
    ("destination", "destination", Address("٤٩")),
    ("destination", "destination", Address("1", npi=256)),
    ("schedule_time", "schedule_time", "0" * 15),
    ("schedule_time", "schedule_time", "0" * 17),
    ("validity_period", "validity_period", "R"),
    ("validity_period", "validity_period", "0" * 15 + "\0"),
    ("esm_class", "esm_class", 256),
    ("protocol_id", "protocol_id", -1),
    ("priority", "priority", 256),
    ("registered_delivery", "registered_delivery", 256),
    ("replace_if_present", "replace_if_present", 256),
    ("data_coding", "data_coding", 256),
    ("default_message_id", "default_message_id", 256),
    ("octets", "octets", bytes(255)),
    ("octets", "tlvs", ((Tag.MESSAGE_PAYLOAD, b"too"),)),
    ("tlvs", "tlvs", ((0x10000, b""),)),
    ("tlvs", "tlvs", ((-1, b""),)),
    ("tlvs", "tlvs", ((0x1400, bytes(0x10000)),)),
]


@pytest.mark.parametrize(("blamed", "field", "value"), REFUSED)
def test_what_smpp_cannot_hold_is_refused(blamed: str, field: str, value: Any) -> None:
    message = msgspec.structs.replace(MESSAGE, **{field: value})
    with pytest.raises(InvalidError) as refused:
        codec.encode_short_message(message)
    assert refused.value.field == blamed


# Where the fields of OCTETS begin.
SOURCE, DESTINATION, TIMES, LENGTH, TLVS = 6, 13, 29, 51, 56

FAULTY = {
    "nothing": (b"", 0x02),
    "service_type_without_end": (b"CMT", 0x02),
    "service_type_too_long": (b"SIXSIX" + OCTETS[3:], 0x15),
    "service_type_8_bit": (b"\xe9" + OCTETS[3:], 0x15),
    "source_too_long": (OCTETS[:SOURCE] + b"1" * 21 + OCTETS[SOURCE + 4 :], 0x0A),
    "source_8_bit": (OCTETS[:SOURCE] + b"\xc4" + OCTETS[SOURCE + 1 :], 0x0A),
    "source_without_end": (OCTETS[: SOURCE + 4], 0x02),
    "destination_too_long": (OCTETS[:DESTINATION] + b"1" * 9 + OCTETS[DESTINATION:], 0x0B),
    "destination_without_end": (OCTETS[: DESTINATION + 3], 0x02),
    "ends_in_the_modes": (OCTETS[: TIMES - 1], 0x02),
    "schedule_time_of_three": (OCTETS[:TIMES] + b"abc" + OCTETS[TIMES:], 0x61),
    "validity_too_short": (OCTETS[: TIMES + 1] + OCTETS[TIMES + 2 :], 0x62),
    "validity_too_long": (OCTETS[: TIMES + 1] + b"0" + OCTETS[TIMES + 1 :], 0x62),
    "ends_in_the_flags": (OCTETS[: LENGTH - 1], 0x02),
    "ends_before_sm_length": (OCTETS[:LENGTH], 0x02),
    "sm_length_beyond_the_end": (OCTETS[: TLVS - 1], 0x01),
    "sm_length_255": (OCTETS[:LENGTH] + b"\xff" + bytes(255), 0x01),
    "tlv_without_length": (OCTETS + b"\0\x1e\0", 0xC0),
    "tlv_beyond_the_end": (OCTETS + b"\0\x1e\0\x03ab", 0xC0),
    "text_twice": (OCTETS + b"\x04\x24\0\x02Hi", 0xC1),
}


@pytest.mark.parametrize(("body", "status"), FAULTY.values(), ids=FAULTY)
def test_a_faulty_body_names_the_status_of_its_answer(body: bytes, status: int) -> None:
    with pytest.raises(ProtocolError) as fault:
        codec.decode_short_message(body)
    assert (fault.value.status, fault.value.fatal) == (status, False)


@given(short_messages(), st.integers(0, 400))
def test_a_body_cut_short_is_refused_or_ends_between_parameters(
    message: ShortMessage, cut: int
) -> None:
    body = codec.encode_short_message(message)[:cut]
    try:
        found = codec.decode_short_message(body)
    except ProtocolError:
        return
    assert found == msgspec.structs.replace(message, tlvs=message.tlvs[: len(found.tlvs)])


def test_parameters_nobody_knows_are_kept() -> None:
    tlvs = ((0x1401, b"vendor"), (0x0999, b""), (0x0427, b"four"), (0x0427, b"\2"))
    body = codec.encode_short_message(ShortMessage(tlvs=tlvs))
    message = codec.decode_short_message(body)
    assert message.tlvs == tlvs
    assert message.tlv(0x0427) == b"four"


# --- templates


@given(
    short_messages(st.just(((0x1400, b"vendor"),))),
    text(20),
    st.binary(max_size=254),
    st.none() | st.integers(0, 0xFFFF),
)
def test_a_filled_template_is_the_encoded_message(
    message: ShortMessage, destination: str, octets: bytes, reference: int | None
) -> None:
    to = msgspec.structs.replace(message.destination, digits=destination)
    extra = () if reference is None else ((0x0204, struct.pack(">H", reference)),)
    short = msgspec.structs.replace(
        message, destination=to, octets=octets, tlvs=message.tlvs + extra
    )
    paid = msgspec.structs.replace(
        short, octets=b"", tlvs=((0x0424, octets), *message.tlvs, *extra)
    )
    for payload, whole in ((False, short), (True, paid)):
        filled = codec.Template(message, payload=payload).body(destination, octets, reference)
        assert filled == codec.encode_short_message(whole)


@pytest.mark.parametrize(
    ("field", "destination", "octets", "reference"),
    [
        ("destination", "1" * 21, b"", None),
        ("destination", "4\0", b"", None),
        ("destination", "é", b"", None),
        ("octets", "1", bytes(255), None),
        ("reference", "1", b"", 0x10000),
    ],
)
def test_a_template_refuses_what_does_not_fit(
    field: str, destination: str, octets: bytes, reference: int | None
) -> None:
    with pytest.raises(InvalidError) as refused:
        codec.Template(ShortMessage()).body(destination, octets, reference)
    assert refused.value.field == field


@pytest.mark.parametrize("tag", [Tag.USER_MESSAGE_REFERENCE, Tag.MESSAGE_PAYLOAD])
def test_a_template_has_no_reference_or_payload_of_its_own(tag: Tag) -> None:
    with pytest.raises(InvalidError):
        codec.Template(ShortMessage(tlvs=((tag, b"\0\1"),)))


# --- the others


def test_frame() -> None:
    assert codec.frame(Command.SUBMIT_SM, 0, 7, b"abc") == bytes.fromhex(
        "00000013 00000004 00000000 00000007 616263"
    )
    assert codec.frame(Command.GENERIC_NACK, 3, 9) == bytes.fromhex(
        "00000010 80000000 00000003 00000009"
    )


def test_names() -> None:
    for command in Command:
        assert names.name_of(command) == command.name.lower()
    assert names.name_of(0x00010200) == "0x00010200"
    assert names.status_name(0x58) == "ESME_RTHROTTLED"
    assert names.status_name(0x400) == ""


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"", ""),  # an error, and some SMSCs with status 0
        (b"\0", ""),
        (b"0a:-B\0", "0a:-B"),
        (b"i" * 64 + b"\0", "i" * 64),
        (b"id\0\x04\x23\0\x03\x03\0\x01", "id"),
        (b"\0\x14\0\0\0", ""),
    ],
)
def test_message_id(body: bytes, found: str) -> None:
    assert codec.message_id(body) == found


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"id", 0x02),
        (b"i" * 65 + b"\0", 0x0C),
        (b"\xe9\0", 0x0C),
        (b"id\0\x04", 0xC0),
        (b"id\0\x04\x23\0\x03\x03", 0xC0),
    ],
)
def test_a_faulty_message_id(body: bytes, status: int) -> None:
    with pytest.raises(ProtocolError) as fault:
        codec.message_id(body)
    assert fault.value.status == status


SETTINGS = SmppSettings(system_type="VMA", address_range="^49")


def test_bind() -> None:
    body = codec.bind(Command.BIND_TRANSCEIVER, "outspool", "secret08", SETTINGS)
    assert body == b"outspool\0secret08\0VMA\0\x34\0\0^49\0"
    older = codec.bind(Command.BIND_RECEIVER, "", "", SmppSettings(interface_version=0x33))
    assert older == b"\0\0\0\x33\0\0\0"


@pytest.mark.parametrize(
    ("field", "command", "system_id", "password", "settings"),
    [
        ("system_id", Command.BIND_RECEIVER, "s" * 16, "", SETTINGS),
        ("password", Command.BIND_RECEIVER, "s", "nine59chr", SETTINGS),
        ("password", Command.BIND_RECEIVER, "s", "a\0b", SETTINGS),
        ("system_type", Command.BIND_RECEIVER, "s", "", SmppSettings(system_type="é")),
        ("command", Command.SUBMIT_SM, "s", "", SETTINGS),
    ],
)
def test_a_login_that_smpp_cannot_hold_is_refused(
    field: str, command: Command, system_id: str, password: str, settings: SmppSettings
) -> None:
    with pytest.raises(InvalidError) as refused:
        codec.bind(command, system_id, password, settings)
    assert refused.value.field == field
    assert "nine59chr" not in str(refused.value)  # an error message is for logs


def test_bind_response() -> None:
    assert codec.bind_response(b"") == ("", ())
    assert codec.bind_response(b"smsc\0\x02\x10\0\x01\x34") == ("smsc", ((0x0210, b"\x34"),))
    assert codec.bind_response(b"a name of twenty-six octets\0")[0].startswith("a name")
    for faulty in (b"smsc", b"sm\xe9\0", b"smsc\0\x02\x10\0\x01"):
        with pytest.raises(ProtocolError):
            codec.bind_response(faulty)


def test_query() -> None:
    assert codec.query("0a1b", Address("ACME", 5, 0)) == b"0a1b\0\x05\0ACME\0"
    for message_id, source in (("i" * 65, Address()), ("i", Address("1" * 21))):
        with pytest.raises(InvalidError):
            codec.query(message_id, source)


def test_query_response() -> None:
    date = b"261121124500000+"
    assert codec.query_response(b"0a\0" + date + b"\0\x02\x05") == ("0a", date.decode(), 2, 5)
    assert codec.query_response(b"0a\0\0\x01\0\x14\0\0\0") == ("0a", "", 1, 0)
    assert codec.query_response(b"") == ("", "", None, 0)
    for faulty in (b"0a", b"0a\0", b"0a\0\0", b"0a\0\0\x02", b"0a\0abc\0\x02\0", b"0a\0\0\x02\0x"):
        with pytest.raises(ProtocolError):
            codec.query_response(faulty)
