"""Short messages as SMPP can hold them, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from gateways.smpp.pdu import Address, ShortMessage, Tag

OCTET = st.integers(0, 255)
ASCII = st.characters(min_codepoint=1, max_codepoint=127)


def text(longest: int) -> st.SearchStrategy[str]:
    return st.text(ASCII, max_size=longest)


TIME = st.just("") | st.text(ASCII, min_size=16, max_size=16)
ADDRESS = st.builds(Address, text(20), OCTET, OCTET)
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
