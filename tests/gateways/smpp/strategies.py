"""Short messages as SMPP can hold them, for hypothesis."""

from __future__ import annotations

import struct

from hypothesis import strategies as st

from gateways.smpp.pdu import Address, ShortMessage, Tag

OCTET = st.integers(0, 255)
ASCII = st.characters(min_codepoint=1, max_codepoint=127)


def text(longest: int) -> st.SearchStrategy[str]:
    return st.text(ASCII, max_size=longest)


TIME = st.just("") | st.text(ASCII, min_size=16, max_size=16)


def address(longest: int) -> st.SearchStrategy[Address]:
    return st.builds(Address, text(longest), OCTET, OCTET)


ADDRESS = address(20)
# Known ones, unknown ones, vendors' (0x1400 and above), of any size.
TLV = st.tuples(st.sampled_from(Tag) | st.integers(0, 0xFFFF), st.binary(max_size=40))
_TLVS = st.lists(TLV, max_size=4).map(tuple)


def short_messages(
    tlvs: st.SearchStrategy[tuple[tuple[int, bytes], ...]] = _TLVS,
) -> st.SearchStrategy[ShortMessage]:
    """Any message that ``encode_short_message`` takes."""
    return tlvs.flatmap(_with)


def _with(tlvs: tuple[tuple[int, bytes], ...]) -> st.SearchStrategy[ShortMessage]:
    paid = any(tag == Tag.MESSAGE_PAYLOAD for tag, _ in tlvs)
    return st.builds(
        ShortMessage,
        service_type=text(5),
        source=ADDRESS,
        destination=ADDRESS,
        esm_class=OCTET,
        protocol_id=OCTET,
        priority=OCTET,
        schedule_time=TIME,
        validity_period=TIME,
        registered_delivery=OCTET,
        replace_if_present=OCTET,
        data_coding=OCTET,
        default_message_id=OCTET,
        octets=st.just(b"") if paid else st.binary(max_size=254),
        tlvs=st.just(tlvs),
    )


_LONG_ADDRESS = address(64)


def data_messages(
    addresses: st.SearchStrategy[Address] = _LONG_ADDRESS,
    tlvs: st.SearchStrategy[tuple[tuple[int, bytes], ...]] = _TLVS,
) -> st.SearchStrategy[ShortMessage]:
    """Any message that a data_sm can hold."""
    return st.builds(
        ShortMessage,
        service_type=text(5),
        source=addresses,
        destination=addresses,
        esm_class=OCTET,
        registered_delivery=OCTET,
        data_coding=OCTET,
        tlvs=tlvs,
    )


def data_octets(message: ShortMessage) -> bytes:
    """The body of a data_sm with it: only what §4.7.1 has."""
    parts = [message.service_type.encode() + b"\0"]
    for address in (message.source, message.destination):
        parts += [bytes((address.ton, address.npi)), address.digits.encode() + b"\0"]
    parts.append(bytes((message.esm_class, message.registered_delivery, message.data_coding)))
    parts += [struct.pack(">HH", tag, len(value)) + value for tag, value in message.tlvs]
    return b"".join(parts)
