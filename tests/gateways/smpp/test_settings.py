from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from engine.config import Config
from engine.errors import InvalidError
from engine.model import Provider
from gateways.smpp import settings
from gateways.smpp.gateway import SmppGateway
from gateways.smpp.settings import SmppSettings, parse, status_table

PAGE = Path(settings.__file__).with_name("PROVIDERS.md")


def test_nothing_given_is_every_default() -> None:
    assert parse({}) == SmppSettings()


def test_what_is_given_is_kept() -> None:
    given = parse({"window": 10, "bind": "pair", "price_per_part": 0.07})
    assert (given.window, given.bind, given.price_per_part) == (10, "pair", 0.07)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"windw": 10}, "windw"),
        ({"window": 0}, "window"),
        ({"window": "many"}, "window"),
        ({"bind": "receiver"}, "bind"),
        ({"gsm_coding": 256}, "gsm_coding"),
        ({"enquire_link_s": 0}, "enquire_link_s"),
        ({"retry_s": [0]}, "retry_s"),
        ({"retry_s": [30] * 101}, "retry_s"),
        ({"bind": "both"}, "one of pair, transceiver"),
        ({"statuses": {"0x400": "shrug"}}, "statuses"),
        ({"statuses": {"0x0": "retry"}}, "0x0"),
        ({"statuses": {"-1": "retry"}}, "-1"),
        ({"statuses": {"4294967296": "retry"}}, "4294967296"),
        ({"statuses": {"busy": "retry"}}, "busy"),
        ({"sender_id": "ACME Söhne"}, "sender_id"),
        ({"sender_id": "Twelve chars"}, "sender_id"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidError, match=re.escape(named)) as refused:
        parse(given)
    assert refused.value.field == "settings"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"username": "a" * 16}, "username"),
        ({"username": "\u00e9"}, "username"),
        ({"password": "123456789"}, "password"),
        ({"settings": {"windw": 1}}, "settings"),
        ({"transport": "udp"}, "transport"),
    ],
)
def test_what_no_bind_can_be_made_of_is_refused(fields: dict[str, Any], named: str) -> None:
    gateway = SmppGateway(Config())
    good: dict[str, Any] = {"username": "a" * 15, "password": "12345678", "transport": "tcp"}
    for transport in ("tcp", "tls"):
        gateway.check(Provider(name="p", type="smpp", **good | {"transport": transport}))
    with pytest.raises(InvalidError) as refused:
        gateway.check(Provider(name="p", type="smpp", **good | fields))
    assert refused.value.field == named


def test_statuses_are_numbers_however_they_are_written() -> None:
    table = status_table(parse({"statuses": {"0x40b": "retry", "1036": "permanent"}}))
    assert table == {0x40B: "retry", 1036: "permanent"}


def test_the_page_has_every_setting_and_no_other() -> None:
    rows = re.findall(r"^\| (`.+?) \|", PAGE.read_text(), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    states = {"initiated", "connected", "completed", "failed"}
    assert sorted(set(named) - states) == sorted(SmppSettings.__struct_fields__)
