"""A bound session under octets nobody would send: no token lost, none ended twice, all bounded."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateways.smpp import codec
from gateways.smpp.events import Answered, Bound, Closed, Delivered, Event
from gateways.smpp.login import Login
from gateways.smpp.pdu import Command
from gateways.smpp.session import Session
from gateways.smpp.settings import SmppSettings
from tests.gateways.smpp.spoilt import LONGEST, stream, valid_bodies

WINDOW = 40
PDUS = 200_000
SETTINGS = SmppSettings(window=WINDOW)


class Owner:
    """Keeps the window full and counts how every token ends."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.given = 0
        self.ends: Counter[int] = Counter()
        self.closed: Closed | None = None
        self.delivered = 0
        self.session = Session(
            Login("us", "pw"),
            SETTINGS,
            command=Command.BIND_TRANSCEIVER,
            max_pdu_bytes=LONGEST,
            now=0.0,
        )
        self.session.open(0.0)
        self.session.take_output(0.0)
        bound = codec.frame(Command.BIND_TRANSCEIVER_RESP, 0, 1, b"smsc\0")
        assert self.session.feed(bound, 0.0) == [Bound()]

    def submit(self) -> None:
        room = self.session.room
        items = [(bytes(17), token) for token in range(self.given, self.given + room)]
        self.session.submit_many(items)
        self.given += room
        assert self.session.in_flight <= WINDOW
        if self.dice.randrange(3):
            self.session.take_output(0.0)

    def take(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Answered(token=token):
                    self.ends[token] += 1
                case Delivered(sequence=sequence):
                    self.delivered += 1
                    self.session.answer(sequence, 0)
                case Closed():
                    assert self.closed is None
                    self.closed = event
                    self.ends.update([*event.in_flight, *event.unsent])


def test_every_token_ends_once_whatever_the_peer_sends() -> None:
    dice = random.Random(5_0)
    valid = list(valid_bodies(dice))
    answered = delivered = broken = 0
    for _ in range(PDUS // 100):
        owner = Owner(dice)
        octets = stream(dice, valid, 100)
        at = 0
        while at < len(octets) and owner.closed is None:
            owner.submit()
            step = dice.choice((16, 100, 1460, 65536))
            owner.take(owner.session.feed(octets[at : at + step], 0.0))
            at += step
        broken += owner.closed is not None
        if owner.closed is None:
            owner.take(owner.session.eof())
        assert owner.closed is not None
        assert owner.ends == Counter(range(owner.given))
        answered += owner.given - len(owner.closed.in_flight) - len(owner.closed.unsent)
        delivered += owner.delivered
    # The generator does its work.
    assert min(answered, delivered) > PDUS / 100
    assert broken > PDUS / 1000


@pytest.mark.parametrize("seed", range(20))
def test_before_the_bind_is_answered(seed: int) -> None:
    dice = random.Random(seed)
    valid = list(valid_bodies(dice))
    session = Session(
        Login("us", "pw"), SETTINGS, command=Command.BIND_RECEIVER, max_pdu_bytes=LONGEST, now=0.0
    )
    session.open(0.0)
    events = session.feed(stream(dice, valid, 200), 0.0)
    assert not any(isinstance(event, Answered | Delivered) for event in events)
    assert session.room == 0
