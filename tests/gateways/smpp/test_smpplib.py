"""smpplib as judge of our codec; where the two disagree, each case shows which of them is wrong."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from smpplib import smpp

from engine.errors import InvalidError
from gateways.smpp import codec, data_sm, names
from gateways.smpp.pdu import HEADER_SIZE, Address, Command, ProtocolError, ShortMessage
from gateways.smpp.settings import SmppSettings
from tests.gateways.smpp.strategies import (
    TIME,
    address,
    data_messages,
    data_octets,
    short_messages,
    text,
)


class Sequence:
    """What smpplib asks of a client."""

    sequence = 1

    def next_sequence(self) -> int:
        return self.sequence


def generated(command: str, **fields: Any) -> bytes:
    """smpplib's body of a PDU."""
    pdu: bytes = smpp.make_pdu(command, client=Sequence(), **fields).generate()
    return pdu[HEADER_SIZE:]


def parsed(command: Command, body: bytes) -> Any:
    """smpplib's reading of a body."""
    pdu = codec.frame(command, 0, 1, body)
    return smpp.parse_pdu(pdu, client=Sequence(), allow_unknown_opt_params=True)


def fields_of(message: ShortMessage) -> dict[str, Any]:
    """A message in smpplib's words."""
    return {
        "service_type": message.service_type,
        "source_addr_ton": message.source.ton,
        "source_addr_npi": message.source.npi,
        "source_addr": message.source.digits,
        "dest_addr_ton": message.destination.ton,
        "dest_addr_npi": message.destination.npi,
        "destination_addr": message.destination.digits,
        "esm_class": message.esm_class,
        "protocol_id": message.protocol_id,
        "priority_flag": message.priority,
        "schedule_delivery_time": message.schedule_time,
        "validity_period": message.validity_period,
        "registered_delivery": message.registered_delivery,
        "replace_if_present_flag": message.replace_if_present,
        "data_coding": message.data_coding,
        "sm_default_msg_id": message.default_message_id,
        "short_message": message.octets,
    }


# Optional parameters that smpplib writes and reads as it should, in the order in which it does.
_SUBMIT = {
    "user_message_reference": (0x0204, 2),
    "sar_msg_ref_num": (0x020C, 2),
    "sar_total_segments": (0x020E, 1),
    "sar_segment_seqnum": (0x020F, 1),
    "payload_type": (0x0019, 1),
}
_DELIVER = {"network_error_code": (0x0423, 3), "message_state": (0x0427, 1)}


def chosen(known: dict[str, tuple[int, int]]) -> st.SearchStrategy[tuple[tuple[int, bytes], ...]]:
    """Some of them, each once, with values of their sizes."""
    each = [
        st.none() | st.tuples(st.just(tag), st.binary(min_size=size, max_size=size))
        for tag, size in known.values()
    ]
    return st.tuples(*each).map(lambda found: tuple(one for one in found if one is not None))


def number(value: bytes) -> int:
    return int.from_bytes(value)


@given(short_messages(chosen(_SUBMIT)))
def test_both_write_the_same_submit_sm(message: ShortMessage) -> None:
    names = {tag: name for name, (tag, _) in _SUBMIT.items()}
    extra = {names[tag]: number(value) for tag, value in message.tlvs}
    theirs = generated("submit_sm", **fields_of(message), **extra)
    assert codec.encode_short_message(message) == theirs


@given(short_messages(chosen(_SUBMIT)), st.binary(min_size=1, max_size=1000))
def test_both_write_the_same_payload(message: ShortMessage, payload: bytes) -> None:
    # smpplib puts it after everything else that it is given here.
    names = {tag: name for name, (tag, _) in _SUBMIT.items()}
    extra = {names[tag]: number(value) for tag, value in message.tlvs}
    theirs = generated(
        "submit_sm", **fields_of(message) | {"short_message": b""}, **extra, message_payload=payload
    )
    found = codec.decode_short_message(theirs)
    assert found.tlvs == (*message.tlvs, (0x0424, payload))
    assert codec.encode_short_message(found) == theirs


@given(short_messages(chosen(_DELIVER)), text(64))
def test_both_read_the_same_deliver_sm(message: ShortMessage, receipted: str) -> None:
    tail = struct.pack(">HH", 0x001E, len(receipted) + 1) + receipted.encode() + b"\0"
    theirs = parsed(Command.DELIVER_SM, codec.encode_short_message(message) + tail)
    for name, value in fields_of(message).items():
        assert getattr(theirs, name) == (value.encode() if isinstance(value, str) else value)
    assert theirs.receipted_message_id == receipted.encode()
    ours = dict(message.tlvs)
    assert theirs.network_error_code == ours.get(0x0423)
    assert theirs.message_state == (number(ours[0x0427]) if 0x0427 in ours else None)


_DATA_FIELDS = (
    "service_type", "source_addr_ton", "source_addr_npi", "source_addr", "dest_addr_ton",
    "dest_addr_npi", "destination_addr", "esm_class", "registered_delivery", "data_coding",
)  # fmt: skip
# What smpplib knows of a data_sm; addresses as long as it takes them.
_DATA = {name: _SUBMIT[name] for name in list(_SUBMIT)[1:]} | _DELIVER


def data_fields_of(message: ShortMessage) -> dict[str, Any]:
    """A message in smpplib's words for a data_sm."""
    found = fields_of(message)
    return {name: found[name] for name in _DATA_FIELDS}


@given(data_messages(address(20), chosen(_DATA)), st.binary(min_size=1, max_size=255), text(64))
def test_a_data_sm_that_both_read_alike(
    message: ShortMessage, payload: bytes, receipted: str
) -> None:
    tail = ((0x0424, payload), (0x001E, receipted.encode() + b"\0"))
    body = data_octets(structs.replace(message, tlvs=(*message.tlvs, *tail)))
    ours, theirs = data_sm.decode(body), parsed(Command.DATA_SM, body)
    for name, value in data_fields_of(ours).items():
        assert getattr(theirs, name) == (value.encode() if isinstance(value, str) else value)
    assert theirs.message_payload == ours.tlv(0x0424) == payload
    assert theirs.receipted_message_id + b"\0" == ours.tlv(0x001E)
    assert theirs.network_error_code == ours.tlv(0x0423)
    state = ours.tlv(0x0427)
    assert theirs.message_state == (None if state is None else number(state))


@given(data_messages(address(20), st.just(())), st.binary(min_size=1, max_size=255))
def test_ours_reads_the_data_sm_it_writes(message: ShortMessage, payload: bytes) -> None:
    theirs = generated("data_sm", **data_fields_of(message), message_payload=payload)
    assert data_sm.decode(theirs) == structs.replace(message, tlvs=((0x0424, payload),))


@given(text(64))
def test_both_read_the_same_message_id(message_id: str) -> None:
    body = generated("submit_sm_resp", message_id=message_id)
    assert codec.message_id(body) == message_id
    assert parsed(Command.SUBMIT_SM_RESP, body).message_id == message_id.encode()


@pytest.mark.parametrize(
    "command", [Command.BIND_RECEIVER, Command.BIND_TRANSMITTER, Command.BIND_TRANSCEIVER]
)
@given(text(15), text(8), text(12), text(40))
def test_both_write_the_same_bind(
    command: Command, system_id: str, password: str, system_type: str, address_range: str
) -> None:
    theirs = generated(
        names.name_of(command),
        system_id=system_id,
        password=password,
        system_type=system_type,
        address_range=address_range,
    )
    settings = SmppSettings(system_type=system_type, address_range=address_range)
    assert codec.bind(command, system_id, password, settings) == theirs


@given(text(64).filter(bool), text(20), st.integers(0, 255), st.integers(0, 255))
def test_both_write_the_same_query(message_id: str, source: str, ton: int, npi: int) -> None:
    theirs = generated(
        "query_sm",
        message_id=message_id,
        source_addr=source,
        source_addr_ton=ton,
        source_addr_npi=npi,
    )
    assert codec.query(message_id, Address(source, ton, npi)) == theirs


@given(text(64), TIME, st.integers(0, 255), st.integers(0, 255))
def test_both_read_the_same_query_response(
    message_id: str, final_date: str, state: int, error: int
) -> None:
    body = f"{message_id}\0{final_date}\0".encode() + bytes((state, error))
    assert codec.query_response(body) == (message_id, final_date, state, error)
    theirs = parsed(Command.QUERY_SM_RESP, body)
    assert (theirs.message_id, theirs.final_date) == (message_id.encode(), final_date.encode())
    assert (theirs.message_state, theirs.error_code) == (state, error)


# --- where smpplib is wrong (engineering/messaging.md 2, 3): each shows that it still is, so that a
# release that mends it is noticed, and what ours does instead

MESSAGE = ShortMessage(
    source=Address("ACME", 5, 0), destination=Address("4917", 1, 1), octets=b"hi"
)


def test_a_nul_in_an_address_would_inject_fields() -> None:
    injected = "4917\0\x40\0\0\0\0\0\0\0\0\4evil"
    theirs = generated("submit_sm", **fields_of(MESSAGE) | {"destination_addr": injected})
    assert codec.decode_short_message(theirs[: theirs.index(b"evil") + 4]).octets == b"evil"
    with pytest.raises(InvalidError):
        codec.encode_short_message(ShortMessage(destination=Address(injected)))


def test_a_long_number_and_a_long_password_are_cut_without_a_word() -> None:
    number = "1" * 21
    theirs = generated("submit_sm", **fields_of(MESSAGE) | {"destination_addr": number})
    assert codec.decode_short_message(theirs).destination.digits == number[:20]
    with pytest.raises(InvalidError):
        codec.encode_short_message(ShortMessage(destination=Address(number)))
    long = "longer than that"
    assert b"\0longer t\0" in generated("bind_transceiver", system_id="s", password=long)
    with pytest.raises(InvalidError):
        codec.bind(Command.BIND_TRANSCEIVER, "s", long, SmppSettings())


def test_255_octets_are_one_too_many() -> None:
    theirs = generated("submit_sm", **fields_of(MESSAGE) | {"short_message": bytes(255)})
    with pytest.raises(ProtocolError) as fault:
        codec.decode_short_message(theirs)
    assert fault.value.status == 0x01
    with pytest.raises(InvalidError):
        codec.encode_short_message(ShortMessage(octets=bytes(255)))


def test_interface_version_is_always_34() -> None:
    assert generated("bind_receiver", interface_version=0x33)[3] == 0x34
    ours = codec.bind(Command.BIND_RECEIVER, "", "", SmppSettings(interface_version=0x33))
    assert ours[3] == 0x33


def test_a_vendors_parameter_is_dropped() -> None:
    body = codec.encode_short_message(ShortMessage(tlvs=((0x1400, b"kept"),)))
    assert codec.decode_short_message(body).tlv(0x1400) == b"kept"
    theirs = parsed(Command.DELIVER_SM, body)
    assert not any(value == b"kept" for value in vars(theirs).values())


def test_alert_on_message_delivery_is_dropped() -> None:
    theirs = generated("submit_sm", **fields_of(MESSAGE), alert_on_message_delivery=True)
    assert theirs == codec.encode_short_message(MESSAGE)
    body = codec.encode_short_message(ShortMessage(tlvs=((0x130C, b""),)))
    assert body.endswith(b"\x13\x0c\0\0")


def test_source_addr_subunit_is_one_octet() -> None:
    theirs = generated("submit_sm", **fields_of(MESSAGE), source_addr_subunit=1)
    assert theirs.endswith(b"\0\x0d\0\2\0\1")  # §5.3.2.1 says 1


def test_a_string_without_its_end_is_taken_for_fields() -> None:
    body = b"CMT\0\5\0ACME"
    theirs = parsed(Command.DELIVER_SM, body)
    assert theirs.source_addr == b"ACM"  # the last character is gone, and nobody is told
    with pytest.raises(ProtocolError):
        codec.decode_short_message(body)


def test_a_message_id_without_its_end_loses_a_character() -> None:
    assert parsed(Command.SUBMIT_SM_RESP, b"id0815").message_id == b"id081"
    with pytest.raises(ProtocolError):
        codec.message_id(b"id0815")


def test_sm_length_beyond_the_end_is_cut() -> None:
    body = codec.encode_short_message(MESSAGE)[:-1]
    assert parsed(Command.DELIVER_SM, body).short_message == b"h"
    with pytest.raises(ProtocolError):
        codec.decode_short_message(body)


def test_a_parameter_beyond_the_end_is_cut() -> None:
    body = codec.encode_short_message(MESSAGE) + b"\x04\x23\0\3\3"
    assert parsed(Command.DELIVER_SM, body).network_error_code == b"\3"
    with pytest.raises(ProtocolError):
        codec.decode_short_message(body)


def test_receipted_message_id_without_its_nul_loses_a_character() -> None:
    body = codec.encode_short_message(ShortMessage(tlvs=((0x001E, b"0815"),)))
    assert parsed(Command.DELIVER_SM, body).receipted_message_id == b"081"
    assert codec.decode_short_message(body).tlv(0x001E) == b"0815"


def test_a_response_may_have_parameters() -> None:
    body = b"id\0\x04\x23\0\3\3\0\1"
    with pytest.raises(KeyError):
        parsed(Command.SUBMIT_SM_RESP, body)
    assert codec.message_id(body) == "id"


def test_a_number_of_another_size_is_no_crash() -> None:
    body = codec.encode_short_message(ShortMessage(tlvs=((0x0204, b"\7"),)))
    with pytest.raises(struct.error):
        parsed(Command.DELIVER_SM, body)
    assert codec.decode_short_message(body).tlv(0x0204) == b"\7"
