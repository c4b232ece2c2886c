"""Texts on the wire and back: nothing is lost, whatever a provider asks for."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import gsm
from engine.errors import InvalidError
from engine.gateway import TextKind, TextMessage
from engine.model import Provider, Text
from engine.quotes import quote, tariff_of
from gateways.smpp import codec
from gateways.smpp.pdu import Address, ShortMessage, Tag
from gateways.smpp.settings import SmppSettings
from gateways.smpp.text import UDHI, compose, decode, reference_of, text_of

SOURCE, DESTINATION = Address("Shop", 5, 0), Address("4930123456", 1, 1)
GSM_CHARS = "aZ 0@é\nΩ{}[]~^|\\€ñ"
CHARS = GSM_CHARS + "ç`漢Ж😀👩🏽\u200d"
WAYS = ("udh8", "udh16", "sar", "payload")

all_settings = st.builds(
    SmppSettings,
    concatenation=st.sampled_from(WAYS),
    default_alphabet=st.sampled_from(["gsm", "latin1"]),
    max_parts=st.just(255),
    gsm_coding=st.sampled_from([0, 1]),
    price_per_part=st.sampled_from([0.0, 0.07]),
)
messages = st.builds(
    TextMessage,
    text=st.text(st.sampled_from(GSM_CHARS), max_size=500)
    | st.text(st.sampled_from(CHARS), max_size=300),
    kind=st.sampled_from([TextKind.PLAIN, TextKind.UNICODE, TextKind.LATIN1]),
    flash=st.booleans(),
)


def composed(
    text: str | TextMessage, settings: SmppSettings | None = None, **more: Any
) -> list[ShortMessage]:
    message = TextMessage(text=text, **more) if isinstance(text, str) else text
    return compose(
        message,
        source=SOURCE,
        destination=DESTINATION,
        settings=settings or SmppSettings(),
        reference=0xFFFF,
        part_reference=0x1234,
    )


def joined(parts: list[ShortMessage], settings: SmppSettings) -> tuple[str, TextKind]:
    """As a handset, or our own inbound side, puts it together."""
    read = [decode(part, settings) for part in parts]
    octets = b"".join(one.octets for one in read)
    return text_of(octets, read[0].coding, settings)


def numbers(parts: list[ShortMessage]) -> list[tuple[int, int, int] | None]:
    return [decode(part, SmppSettings()).part for part in parts]


@given(messages, all_settings)
def test_what_is_composed_is_read_again_from_the_wire(
    message: TextMessage, settings: SmppSettings
) -> None:
    parts = composed(message, settings)
    wire = [codec.decode_short_message(codec.encode_short_message(part)) for part in parts]
    assert wire == parts
    assert joined(wire, settings)[0] == message.text
    assert "".join(decode(part, settings).text for part in wire) == message.text
    if len(parts) > 1:
        total = len(parts)
        assert [part and part[1:] for part in numbers(wire)] == [
            (total, number) for number in range(1, total + 1)
        ]


@given(messages, all_settings)
def test_a_quote_counts_the_parts_that_are_sent(
    message: TextMessage, settings: SmppSettings
) -> None:
    """The engine reads the same settings by their names: here they are held together."""
    provider = Provider(name="p", type="smpp", settings=msgspec.to_builtins(settings))
    text = Text(name="t", data=message.text, type=message.kind.value, flash=message.flash)
    found = quote(message.text, text, tariff_of(provider))
    parts = composed(message, settings)
    if settings.concatenation != "payload":
        assert list(found.texts) == [decode(part, settings).text for part in parts]
    assert found.size.parts >= len(parts)
    assert found.tariff.price_per_part == settings.price_per_part


@given(messages, all_settings)
def test_every_part_fits_into_one_sms(message: TextMessage, settings: SmppSettings) -> None:
    for part in composed(message, settings):
        header = part.octets[0] + 1 if part.esm_class & UDHI else 0
        body = part.octets[header:]
        if part.data_coding in (settings.gsm_coding, 0x10, 0xF0):
            on_the_air = gsm.encode(body.decode("latin-1")) if _latin1(settings) else body
            assert len(on_the_air) <= (153 if header else 160)
        else:
            assert len(part.octets) <= 140
        assert body or not message.text or part.tlv(Tag.MESSAGE_PAYLOAD)


def _latin1(settings: SmppSettings) -> bool:
    return settings.default_alphabet == "latin1" and settings.gsm_coding == 0


@pytest.mark.parametrize(
    ("way", "head", "size"),
    [
        ("udh8", b"\x05\x00\x03\x34\x02\x01", 153),
        ("udh16", b"\x06\x08\x04\x12\x34\x02\x01", 152),
    ],
)
def test_headers_by_hand(way: Any, head: bytes, size: int) -> None:
    first, second = composed("a" * 161, SmppSettings(concatenation=way))
    assert (first.octets, first.esm_class) == (head + b"a" * size, 0x40)
    assert second.octets == head[:-1] + b"\x02" + b"a" * (161 - size)


def test_sar_goes_beside_the_text() -> None:
    first, second = composed("a" * 161, SmppSettings(concatenation="sar"))
    assert (first.octets, first.esm_class) == (b"a" * 152, 0)
    assert [first.tlv(tag) for tag in (0x20C, 0x20E, 0x20F)] == [b"\x12\x34", b"\x02", b"\x01"]
    assert second.tlv(Tag.SAR_SEGMENT_SEQNUM) == b"\x02"


def test_the_payload_is_whole_and_only_where_one_sms_is_too_small() -> None:
    settings = SmppSettings(concatenation="payload")
    (long,) = composed("a" * 161, settings)
    assert (long.octets, long.tlv(Tag.MESSAGE_PAYLOAD)) == (b"", b"a" * 161)
    (short,) = composed("a" * 160, settings)
    assert (short.octets, short.tlv(Tag.MESSAGE_PAYLOAD)) == (b"a" * 160, None)


def test_every_part_has_a_reference_of_its_own_that_receipts_carry_back() -> None:
    assert [reference_of(part) for part in composed("a" * 400)] == [0xFFFF, 0, 1]
    assert reference_of(ShortMessage()) is None


@pytest.mark.parametrize(
    ("kind", "text", "plain", "flash"),
    [
        (TextKind.PLAIN, "hello", 0, 0x10),
        (TextKind.PLAIN, "Привет", 8, 0x18),
        (TextKind.UNICODE, "hello", 8, 0x18),
        (TextKind.BINARY, "00FF", 4, 0x14),
        (TextKind.LATIN1, "hello", 3, 0x10),  # no class for Latin-1: the class is kept
        (TextKind.LATIN1, "ça", 3, 0x18),
    ],
)
def test_the_coding_says_alphabet_and_class(
    kind: TextKind, text: str, plain: int, flash: int
) -> None:
    assert composed(text, kind=kind)[0].data_coding == plain
    assert composed(text, kind=kind, flash=True)[0].data_coding == flash


def test_codings_are_the_providers() -> None:
    settings = SmppSettings(gsm_coding=0xF1, ucs2_coding=9, binary_coding=0xF5, latin1_coding=1)
    codings = [
        composed(text, settings, kind=kind, flash=flash)[0].data_coding
        for text, kind in (("a", TextKind.PLAIN), ("ж", TextKind.PLAIN), ("00", TextKind.BINARY),
                           ("a", TextKind.LATIN1))
        for flash in (False, True)
    ]  # fmt: skip
    assert codings == [0xF1, 0xF0, 9, 0x18, 0xF5, 0xF4, 1, 0xF0]


@pytest.mark.parametrize(
    ("text", "coding", "octets"),
    [
        ("Grüße {1}", 0, "Grüße {1}".encode("latin-1")),
        ("5 €", 8, "5 €".encode("utf-16-be")),  # not in Latin-1
        ("ça", 8, "ça".encode("utf-16-be")),  # not on the air in GSM
    ],
)
def test_where_coding_0_is_latin1_nothing_is_lost(text: str, coding: int, octets: bytes) -> None:
    (part,) = composed(text, SmppSettings(default_alphabet="latin1"))
    assert (part.data_coding, part.octets) == (coding, octets)


def test_a_flash_text_in_gsm_says_so_where_the_default_is_latin1() -> None:
    settings = SmppSettings(default_alphabet="latin1", gsm_coding=1)
    (part,) = composed("@", settings, flash=True)
    assert (part.data_coding, part.octets) == (0xF0, b"\x00")


def test_latin1_for_gsm_is_cut_as_gsm() -> None:
    """``{`` takes two septets on the air, whatever it takes on the wire."""
    parts = composed("{" * 81, SmppSettings(default_alphabet="latin1"))
    assert [part.octets[6:] for part in parts] == [b"{" * 76, b"{" * 5]


@pytest.mark.parametrize(("receipts", "value"), [("all", 1), ("failure", 2), ("none", 0)])
def test_receipts_are_asked_for(receipts: Any, value: int) -> None:
    settings = SmppSettings(receipts=receipts, service_type="CMT")
    parts = composed("a" * 200, settings)
    assert {(part.registered_delivery, part.service_type) for part in parts} == {(value, "CMT")}
    assert {(part.source, part.destination) for part in parts} == {(SOURCE, DESTINATION)}


def test_the_validity_of_the_text_comes_before_the_providers() -> None:
    settings = SmppSettings(validity_s=3600)
    assert composed("a")[0].validity_period == ""
    assert composed("a", settings)[0].validity_period == "000000010000000R"
    assert composed("a", settings, validity_s=60)[0].validity_period == "000000000100000R"


@pytest.mark.parametrize("way", WAYS)
def test_too_long_a_text_is_refused(way: Any) -> None:
    settings = SmppSettings(concatenation=way, max_parts=2)
    per_part = 152 if way in ("udh16", "sar") else 153
    assert composed("a" * 2 * per_part, settings)
    with pytest.raises(InvalidError, match="3 parts") as raised:
        composed("a" * (2 * per_part + 1), settings)
    assert raised.value.field == "data"


def test_binary_text_is_octets() -> None:
    first, second = composed("AB" * 141, kind=TextKind.BINARY)
    assert (len(first.octets), second.octets[6:]) == (140, b"\xab" * 7)
    with pytest.raises(InvalidError):
        composed("hello", kind=TextKind.BINARY)


# --- in -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("coding", "octets", "text", "kind"),
    [
        (0, b"\x00\x1be", "@€", TextKind.PLAIN),
        (0x10, b"\x00", "@", TextKind.PLAIN),
        (0x1D, b"\x00", "@", TextKind.PLAIN),  # alphabet 3 is reserved
        (0x51, b"\x00", "@", TextKind.PLAIN),  # to be deleted
        (0x9A, b"\x00", "@", TextKind.PLAIN),  # reserved
        (0xC8, b"\x00", "@", TextKind.PLAIN),
        (0xF1, b"\x00", "@", TextKind.PLAIN),
        (1, b"@", "@", TextKind.LATIN1),
        (3, b"\xe7", "ç", TextKind.LATIN1),
        (2, b"\xab\x01", "AB01", TextKind.BINARY),
        (4, b"\xab\x01", "AB01", TextKind.BINARY),
        (0x14, b"\xab", "AB", TextKind.BINARY),
        (0xF5, b"\xab", "AB", TextKind.BINARY),
        (0x20, b"\xab", "AB", TextKind.BINARY),  # compressed
        (5, b"\xab", "AB", TextKind.BINARY),
        (0x0F, b"\xab", "AB", TextKind.BINARY),
        (8, "ж😀".encode("utf-16-be"), "ж😀", TextKind.UNICODE),
        (8, "ж".encode("utf-16-be") + b"\x04", "ж\ufffd", TextKind.UNICODE),
        (8, b"\xd8\x3d", "\ufffd", TextKind.UNICODE),
        (8, b"\xfe\xff\x04\x36", "ж", TextKind.UNICODE),
        (8, b"\xff\xfe\x36\x04", "ж", TextKind.UNICODE),
        (8, b"\x00\x00\x00a", "\ufffda", TextKind.UNICODE),
        (0x18, "ж".encode("utf-16-be"), "ж", TextKind.UNICODE),
        (0x59, "ж".encode("utf-16-be"), "ж", TextKind.UNICODE),
        (0xE0, "ж".encode("utf-16-be"), "ж", TextKind.UNICODE),
        (6, "ж".encode("iso8859_5"), "ж", TextKind.UNICODE),
        (7, "ש".encode("iso8859_8"), "ש", TextKind.UNICODE),
        (10, "日本".encode("iso2022_jp"), "日本", TextKind.UNICODE),
        (14, "한국".encode("euc_kr"), "한국", TextKind.UNICODE),
    ],
)
def test_every_coding_is_read(coding: int, octets: bytes, text: str, kind: TextKind) -> None:
    read = decode(ShortMessage(data_coding=coding, octets=octets), SmppSettings())
    assert (read.text, read.kind, read.part) == (text, kind, None)
    assert (read.octets, read.coding) == (octets, coding)


def test_codings_of_the_provider_are_read_as_it_means_them() -> None:
    settings = SmppSettings(default_alphabet="latin1", gsm_coding=1, ucs2_coding=6)
    assert text_of(b"\xe7", 0, settings) == ("ç", TextKind.LATIN1)
    assert text_of(b"\x00", 1, settings) == ("@", TextKind.PLAIN)
    assert text_of(b"\x04\x36", 6, settings) == ("ж", TextKind.UNICODE)
    assert text_of(b"\xe7", 0x11, settings) == ("ç", TextKind.LATIN1)


def test_a_pair_cut_between_two_parts_is_read_whole() -> None:
    """Other senders do cut there; what is joined first loses nothing."""
    settings = SmppSettings()
    whole = "ж😀".encode("utf-16-be")
    parts = [
        ShortMessage(
            esm_class=UDHI, data_coding=8, octets=bytes((5, 0, 3, 7, 2, number)) + octets
        )
        for number, octets in enumerate((whole[:4], whole[4:]), 1)
    ]  # fmt: skip
    assert decode(parts[0], settings).text == "ж\ufffd"
    assert numbers(parts) == [(7, 2, 1), (7, 2, 2)]
    assert joined(parts, settings) == ("ж😀", TextKind.UNICODE)


@pytest.mark.parametrize(
    ("octets", "text", "part"),
    [
        (b"\x05\x00\x03\x07\x02\x01hi", "hi", (7, 2, 1)),
        (b"\x06\x08\x04\x01\x07\x02\x02hi", "hi", (263, 2, 2)),
        (b"\x0b\x05\x04\x0b\x84\x23\xf0\x00\x03\x07\x02\x01hi", "hi", (7, 2, 1)),  # ports first
        (b"\x06\x05\x04\x0b\x84\x23\xf0hi", "hi", None),
        (b"\x05\x00\x03\x07\x02\x00hi", "hi", None),  # number 0
        (b"\x05\x00\x03\x07\x02\x03hi", "hi", None),  # three of two
        (b"\x05\x00\x03\x07\x00\x00hi", "hi", None),
        (b"\x05\x00\x03\x07\x01\x01hi", "hi", None),  # one of one is whole
        (b"\x05\x00\x04\x07\x02\x01hi", "hi", None),  # an element longer than the header
        (b"\x04\x00\x02\x07\x02hi", "hi", None),  # one shorter than it must be
        (b"\x01\x00hi", "hi", None),
        (b"\x00hi", "hi", None),
        (b"\x30hi", "0hi", None),  # a header longer than all there is
        (b"", "", None),
    ],
)
def test_headers_that_lie_lose_no_text(octets: bytes, text: str, part: Any) -> None:
    read = decode(ShortMessage(esm_class=UDHI, octets=octets), SmppSettings())
    assert (read.text, read.part) == (text, part)


def test_sar_and_payload_are_read() -> None:
    sar = ((0x20C, b"\x01\x00"), (0x20E, b"\x03"), (0x20F, b"\x02"))
    read = decode(ShortMessage(tlvs=(*sar, (0x424, b"hi"))), SmppSettings())
    assert (read.text, read.part) == ("hi", (256, 3, 2))
    broken = decode(ShortMessage(octets=b"hi", tlvs=((0x20C, b""), *sar[1:])), SmppSettings())
    assert (broken.text, broken.part) == ("hi", None)


@given(
    st.builds(
        ShortMessage,
        esm_class=st.integers(0, 255),
        data_coding=st.integers(0, 255),
        octets=st.binary(max_size=254),
        tlvs=st.lists(
            st.tuples(st.sampled_from([0x20C, 0x20E, 0x20F, 0x424, 0x1400]), st.binary(max_size=9))
        ).map(tuple),
    ),
    all_settings,
)
def test_whatever_comes_in_is_read_as_something(
    message: ShortMessage, settings: SmppSettings
) -> None:
    read = decode(message, settings)
    assert "\x00" not in read.text
    read.text.encode()  # no half of a surrogate pair is in it
    if read.part is not None:
        assert 1 <= read.part[2] <= read.part[1] <= 255


def test_references_follow_each_other() -> None:
    references = [reference_of(part) for part in composed("é" * 4000)]
    assert len(references) == 27
    assert all(
        first is not None and second == (first + 1) & 0xFFFF
        for first, second in pairwise(references)
    )
