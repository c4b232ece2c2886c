"""PDU bodies to octets and back (SMPP 3.4 §4, §5), strictly. Pure.

smpplib supplies the names of commands and statuses (``names``) and judges us in the tests. Its PDUs
are not used, the cold ones neither: it lets a NUL in a field shift all fields after it, cuts what
is too long without a word, takes a string without its NUL for garbage instead of refusing it, and
raises KeyError on optional parameters that a response may well carry (engineering/messaging.md
2-3).

What decodes, encodes to the same octets again, and the other way round.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NoReturn

from engine.errors import InvalidError
from gateways.smpp.names import name_of
from gateways.smpp.pdu import HEADER_SIZE, Address, Command, ProtocolError, ShortMessage, Tag
from gateways.smpp.settings import SmppSettings

MAX_OCTETS = 254
"""§5.2.22: longest short_message; what is longer goes into message_payload."""
MAX_ADDRESS = 20
MAX_MESSAGE_ID = 64

Tlvs = tuple[tuple[int, bytes], ...]

# Statuses we answer with (§5.1.3).
RINVMSGLEN, RINVCMDLEN = 0x01, 0x02
RINVSRCADR, RINVDSTADR, RINVMSGID, RINVSYSID, RINVSERTYP = 0x0A, 0x0B, 0x0C, 0x0F, 0x15
RINVSCHED, RINVEXPIRY, RINVOPTPARSTREAM, ROPTPARNOTALLWD = 0x61, 0x62, 0xC0, 0xC1

_HEADER = struct.Struct(">IIII")
_TLV = struct.Struct(">HH")
_REFERENCE = struct.Struct(">HHH")
_REFERENCE_TAG = Tag.USER_MESSAGE_REFERENCE.value
_PAYLOAD = int(Tag.MESSAGE_PAYLOAD)
_LENGTHS = [bytes((length,)) for length in range(MAX_OCTETS + 1)]
_BINDS = (Command.BIND_RECEIVER, Command.BIND_TRANSMITTER, Command.BIND_TRANSCEIVER)


def frame(command: int, status: int, sequence: int, body: bytes = b"") -> bytes:
    """A whole PDU: the 16 octets of §5.1.1 and the body."""
    return _HEADER.pack(HEADER_SIZE + len(body), command, status, sequence) + body


def requests(command: int, sequences: Sequence[int], bodies: Sequence[bytes]) -> list[bytes]:
    """Many whole PDUs of one command, in order."""
    pack = _HEADER.pack
    return [
        pack(HEADER_SIZE + len(body), command, 0, sequence) + body
        for sequence, body in zip(sequences, bodies, strict=True)
    ]


# --- submit_sm, deliver_sm


def encode_short_message(message: ShortMessage) -> bytes:
    """Body of a submit_sm or deliver_sm (§4.4.1, §4.6.1).

    ``InvalidError`` names the field that SMPP cannot hold; nothing is ever cut to fit.
    """
    destination = message.destination
    return b"".join(
        (
            _beginning(message.service_type, message.source, destination.ton, destination.npi),
            _text(destination.digits, MAX_ADDRESS, "destination"),
            _flags(message),
            _short_message(message),
            _encode_tlvs(message.tlvs) if message.tlvs else b"",
        )
    )


def _flags(message: ShortMessage) -> bytes:
    return _middle(
        (message.esm_class, message.protocol_id, message.priority),
        (message.schedule_time, message.validity_period),
        (
            message.registered_delivery,
            message.replace_if_present,
            message.data_coding,
            message.default_message_id,
        ),
    )


# The messages of a campaign differ in destination, text and reference only: the rest is remembered.
_REMEMBERED = 1024


@lru_cache(_REMEMBERED)
def _beginning(service_type: str, source: Address, ton: int, npi: int) -> bytes:
    return b"".join(
        (
            _text(service_type, 5, "service_type"),
            _octets("source", source.ton, source.npi),
            _text(source.digits, MAX_ADDRESS, "source"),
            _octets("destination", ton, npi),
        )
    )


_MODES = ("esm_class", "protocol_id", "priority")
_TIMES = ("schedule_time", "validity_period")
_FLAGS = ("registered_delivery", "replace_if_present", "data_coding", "default_message_id")


@lru_cache(_REMEMBERED)
def _middle(modes: tuple[int, ...], times: tuple[str, ...], flags: tuple[int, ...]) -> bytes:
    return b"".join(
        (*map(_octets, _MODES, modes), *map(_time, _TIMES, times), *map(_octets, _FLAGS, flags))
    )


def _short_message(message: ShortMessage) -> bytes:
    octets = message.octets
    if len(octets) > MAX_OCTETS:
        _too_long(octets)
    if octets and message.tlvs and message.tlv(_PAYLOAD) is not None:
        _refuse("octets", "text in short_message and message_payload (§5.3.2.32)")
    return _LENGTHS[len(octets)] + octets


def _too_long(octets: bytes) -> NoReturn:
    _refuse("octets", f"{len(octets)} octets, at most {MAX_OCTETS} (§5.2.22)")


def _text(text: str, longest: int, field: str) -> bytes:
    """A C-Octet String (§3.1): ASCII, no NUL within, at most ``longest`` without the NUL after."""
    if len(text) > longest:
        _refuse(field, f"{len(text)} characters, at most {longest}")
    if not text.isascii() or "\0" in text:
        _refuse(field, "ASCII without NUL is needed")
    return text.encode() + b"\0"


def _time(field: str, text: str) -> bytes:
    """§7.1.1: 16 characters or none."""
    if text and len(text) != 16:  # noqa: PLR2004 - the clause's own number
        _refuse(field, "16 characters or none (§7.1.1)")
    return _text(text, 16, field)


def _octets(field: str, *numbers: int) -> bytes:
    try:
        return bytes(numbers)
    except (ValueError, TypeError):
        _refuse(field, "an octet, 0 to 255")


def _encode_tlvs(tlvs: Iterable[tuple[int, bytes]]) -> bytes:
    """§3.2.4. The sizes of values are their readers' business, 16 bits hold tag and length."""
    try:
        return b"".join([_TLV.pack(tag, len(value)) + value for tag, value in tlvs])
    except struct.error:
        _refuse("tlvs", "tag and length are 16 bits each (§3.2.4)")


def _refuse(field: str, reason: str) -> NoReturn:
    raise InvalidError(f"{field}: {reason}", field=field)


class Template:
    """A submit_sm of which only destination, text and reference change: encoded once, filled often.

    Made of a message whose own destination digits and octets do not count. ``payload``: the text
    goes into message_payload (§5.3.2.32) instead of short_message.
    """

    __slots__ = ("_after", "_before", "_octets", "_payload", "_tail", "_tlvs")

    def __init__(self, message: ShortMessage, *, payload: bool = False) -> None:
        if {tag for tag, _ in message.tlvs} & {Tag.USER_MESSAGE_REFERENCE, Tag.MESSAGE_PAYLOAD}:
            _refuse("tlvs", "reference and payload are filled in, not part of a template")
        ton, npi = message.destination.ton, message.destination.npi
        self._before = _beginning(message.service_type, message.source, ton, npi)
        self._after = b"\0" + _flags(message)
        self._tlvs = _encode_tlvs(message.tlvs)
        self._payload = payload
        self._octets, self._tail = b"", self._filled(b"")  # campaigns send one text to many

    def body(self, destination: str, octets: bytes, reference: int | None = None) -> bytes:
        """The filled body; ``InvalidError`` as ``encode_short_message``.

        message_payload comes before the template's own optional parameters, a
        user_message_reference (§5.3.2.17, 16 bits) after them.
        """
        if len(destination) > MAX_ADDRESS or not destination.isascii() or "\0" in destination:
            _text(destination, MAX_ADDRESS, "destination")
        if octets != self._octets:
            self._octets, self._tail = octets, self._filled(octets)
        body = self._before + destination.encode() + self._tail
        if reference is None:
            return body
        try:
            return body + _REFERENCE.pack(_REFERENCE_TAG, 2, reference)
        except struct.error:
            _refuse("reference", "16 bits (§5.3.2.17)")

    def _filled(self, octets: bytes) -> bytes:
        """What comes behind the destination."""
        if self._payload:
            text = b"\0" + _encode_tlvs([(Tag.MESSAGE_PAYLOAD, octets)])
        elif len(octets) <= MAX_OCTETS:
            text = _LENGTHS[len(octets)] + octets
        else:
            _too_long(octets)
        return self._after + text + self._tlvs


# --- and back

C_STRING = rb"([\x01-\x7f]{0,%d})\x00"
"""Of so many characters at most (§3.1), to be part of a pattern."""
_TIME = rb"((?:[\x01-\x7f]{16})?)\x00"
_MANDATORY = re.compile(
    b"".join(
        (
            C_STRING % 5, rb"(..)", C_STRING % MAX_ADDRESS, rb"(..)", C_STRING % MAX_ADDRESS,
            rb"(...)", _TIME, _TIME, rb"(.....)",
        )
    ),
    re.DOTALL,
)  # fmt: skip
"""The mandatory parameters of §4.4.1 up to sm_length: one match in C, no loop in Python."""


def decode_short_message(body: bytes) -> ShortMessage:
    """A submit_sm or deliver_sm out of its body (§4.4.1, §4.6.1), all of it or none.

    ``ProtocolError`` carries the status of the response (§5.1.3). Optional parameters nobody knows
    are kept (§3.3), and so are values of sizes their clause does not have: who reads them, judges.
    """
    found = _MANDATORY.match(body)
    if found is None:
        raise fault(body, _FIELDS)
    service_type, source_type, source, destination_type, destination, modes, *rest = found.groups()
    schedule_time, validity_period, flags = rest
    start, length = found.end(), flags[4]
    end = start + length
    if length > MAX_OCTETS or end > len(body):
        raise ProtocolError(f"sm_length {length}, {len(body) - start} octets left", RINVMSGLEN)
    tlvs = decode_tlvs(body, end) if end < len(body) else ()
    if length and tlvs and _PAYLOAD in dict(tlvs):
        raise ProtocolError("text in short_message and message_payload", ROPTPARNOTALLWD)
    return ShortMessage(
        service_type=service_type.decode(),
        source=Address(source.decode(), source_type[0], source_type[1]),
        destination=Address(destination.decode(), destination_type[0], destination_type[1]),
        esm_class=modes[0],
        protocol_id=modes[1],
        priority=modes[2],
        schedule_time=schedule_time.decode(),
        validity_period=validity_period.decode(),
        registered_delivery=flags[0],
        replace_if_present=flags[1],
        data_coding=flags[2],
        default_message_id=flags[3],
        octets=body[start:end],
        tlvs=tlvs,
    )


Fields = Sequence[tuple[str, int, int, int]]
"""Strings of a body: name, octets before it, its longest length, the status if it is not read."""

# Of §4.4.1. Only looked at once a body did not match.
_FIELDS: Fields = (
    ("service_type", 0, 5, RINVSERTYP),
    ("source_addr", 2, MAX_ADDRESS, RINVSRCADR),
    ("destination_addr", 2, MAX_ADDRESS, RINVDSTADR),
    ("schedule_delivery_time", 3, 16, RINVSCHED),
    ("validity_period", 0, 16, RINVEXPIRY),
)


def fault(body: bytes, fields: Fields) -> ProtocolError:
    """Which field of a body that did not match is wrong, as the status of its response."""
    position = 0
    for name, before, longest, status in fields:
        position += before
        end = body.find(0, position)
        if end < 0:
            break
        text = body[position:end]
        timed = status in (RINVSCHED, RINVEXPIRY) and len(text) not in (0, longest)
        if timed or len(text) > longest or not text.isascii():
            return ProtocolError(f"{name} of {len(text)} octets", status)
        position = end + 1
    return ProtocolError("body ends within a field", RINVCMDLEN)


def decode_tlvs(body: bytes, position: int = 0) -> Tlvs:
    """The optional parameters from ``position`` to the end (§3.2.4), in their order."""
    tlvs, size, unpack = [], len(body), _TLV.unpack_from
    while position < size:
        if size - position < _TLV.size:
            raise ProtocolError("an optional parameter without length", RINVOPTPARSTREAM)
        tag, length = unpack(body, position)
        position += _TLV.size + length
        if position > size:
            raise ProtocolError(f"parameter 0x{tag:04x} beyond the end", RINVOPTPARSTREAM)
        tlvs.append((tag, body[position - length : position]))
    return tuple(tlvs)


# --- responses, bind, query


def message_id(body: bytes) -> str:
    """The id in a submit_sm_resp, deliver_sm_resp or data_sm_resp (§4.4.2), "" where there is none.

    An empty body is what errors have (§4.4.2); SMSCs have been seen to leave it out with status 0
    too. Optional parameters after it are checked and left (an error may bring some, §4.7.2).
    """
    if not body:
        return ""
    found, end = _string(body, 0, MAX_MESSAGE_ID, RINVMSGID)
    if end < len(body):
        decode_tlvs(body, end)
    return found


def bind(command: Command, system_id: str, password: str, settings: SmppSettings) -> bytes:
    """Body of a bind_transmitter, bind_receiver or bind_transceiver (§4.1), which are all alike.

    ``InvalidError`` where a field is too long: a password cut to eight would be the wrong one.
    """
    if command not in _BINDS:
        _refuse("command", f"{name_of(command)} is no bind")
    return b"".join(
        (
            _text(system_id, 15, "system_id"),
            _text(password, 8, "password"),
            _text(settings.system_type, 12, "system_type"),
            _octets("interface_version", settings.interface_version, 0, 0),
            _text(settings.address_range, 40, "address_range"),
        )
    )


def bind_response(body: bytes) -> tuple[str, Tlvs]:
    """The SMSC's system_id and its optional parameters (§4.1.2); an error has no body.

    The name may be longer than its 15 characters: nobody reads it, it shall not cost the bind.
    """
    if not body:
        return "", ()
    system_id, end = _string(body, 0, len(body), RINVSYSID)
    return system_id, decode_tlvs(body, end)


def query(message_id: str, source: Address) -> bytes:
    """Body of a query_sm (§4.8.1); ``source`` as it was in the submit_sm."""
    return b"".join(
        (
            _text(message_id, MAX_MESSAGE_ID, "message_id"),
            _octets("source", source.ton, source.npi),
            _text(source.digits, MAX_ADDRESS, "source"),
        )
    )


def query_response(body: bytes) -> tuple[str, str, int | None, int]:
    """message_id, final_date, message_state, error_code (§4.8.2); an error has no body: None."""
    if not body:
        return "", "", None, 0
    found, position = _string(body, 0, MAX_MESSAGE_ID, RINVMSGID)
    final_date, position = _string(body, position, 16, RINVCMDLEN)
    if len(final_date) not in (0, 16) or len(body) < position + 2:
        raise ProtocolError("query_sm_resp: final_date, state or error", RINVCMDLEN)
    decode_tlvs(body, position + 2)
    return found, final_date, body[position], body[position + 1]


def _string(body: bytes, position: int, longest: int, status: int) -> tuple[str, int]:
    """The C-Octet String at ``position`` and where the next field begins."""
    end = body.find(0, position)
    if end < 0:
        raise ProtocolError("a string without its NUL", RINVCMDLEN)
    text = body[position:end]
    if len(text) > longest or not text.isascii():
        raise ProtocolError(f"a string of {len(text)} octets", status)
    return text.decode(), end + 1
