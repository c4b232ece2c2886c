"""Streams of PDUs as no SMSC should send them, by a seed: true lengths mostly, spoilt bodies."""

from __future__ import annotations

import random
from collections.abc import Iterator

from msgspec import structs

from gateways.smpp import codec
from gateways.smpp.pdu import Address, Command, ShortMessage, Tag
from tests.gateways.smpp.strategies import data_octets

LONGEST = 4096
"""What the framer of these streams shall take at most."""

ADDRESSES = (Address("491700000001", 1, 1), Address("ACME", 5, 0), Address("72345", 3, 0))


def valid_bodies(dice: random.Random) -> Iterator[tuple[Command, bytes]]:
    """Bodies as they ought to be, to be spoilt."""
    for number in range(200):
        message = ShortMessage(
            source=dice.choice(ADDRESSES),
            destination=dice.choice(ADDRESSES),
            esm_class=dice.choice((0, 4, 0x40)),
            validity_period=dice.choice(("", "000001000000000R")),
            data_coding=dice.choice((0, 3, 8)),
            octets=dice.randbytes(dice.randrange(255)),
            tlvs=dice.choice(((), ((0x1E, b"0a1b\0"), (0x427, b"\2")), ((0x1400, b""),))),
        )
        command = dice.choice((Command.SUBMIT_SM, Command.DELIVER_SM))
        yield command, codec.encode_short_message(message)
        payload = (Tag.MESSAGE_PAYLOAD, message.octets)
        yield Command.DATA_SM, data_octets(structs.replace(message, tlvs=(*message.tlvs, payload)))
        yield Command.SUBMIT_SM_RESP, b"%x\0" % dice.randrange(1 << 64)
        yield Command.QUERY_SM_RESP, b"%x\0" % number + b"261121124500000+\0\2\0"
        yield Command.BIND_TRANSCEIVER_RESP, b"smsc\0\2\x10\0\1\x34"


def _random(dice: random.Random, body: bytes) -> bytes:
    return dice.randbytes(dice.randrange(2 * len(body) + 1))


def _changed(dice: random.Random, body: bytes) -> bytes:
    at = dice.randrange(len(body))
    return body[:at] + dice.randbytes(dice.randrange(1, 4)) + body[at + 1 :]


def _cut(dice: random.Random, body: bytes) -> bytes:
    return body[: dice.randrange(len(body))]


def _spliced(dice: random.Random, body: bytes) -> bytes:
    at, other = dice.randrange(len(body)), dice.randrange(len(body))
    return body[:at] + body[other:]


def _grown(dice: random.Random, body: bytes) -> bytes:
    return body + dice.randbytes(dice.randrange(1, 40))


def _whole(_dice: random.Random, body: bytes) -> bytes:
    return body


SPOILS = (_random, _changed, _changed, _cut, _spliced, _grown, _whole)
OTHERS = [
    command for command in Command if command not in (Command.UNBIND, Command.UNBIND_RESP)
] + [0, 7, 0x80000007, 0xFFFFFFFF]
WRONG_LENGTHS = (0, 1, 15, LONGEST + 1, 0x7FFFFFFF, 0xFFFFFFFF)


def stream(dice: random.Random, valid: list[tuple[Command, bytes]], count: int) -> bytes:
    """Some PDUs with true lengths and then, mostly, one whose length is a lie."""
    pdus = []
    for sequence in range(1, count):
        command, body = dice.choice(valid)
        number = command if dice.randrange(20) else dice.choice(OTHERS)
        spoilt = dice.choice(SPOILS)(dice, body)
        pdus.append(codec.frame(number, dice.choice((0, 0x58)), sequence, spoilt))
    lie = dice.choice((*WRONG_LENGTHS, 16, 100))
    return b"".join(pdus) + lie.to_bytes(4) + dice.randbytes(dice.randrange(200))
