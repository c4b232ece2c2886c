from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from engine.config import Config, NodeConfig
from engine.errors import InvalidError
from engine.model import Provider
from engine.secrets import Secrets, hidden, keeping_secrets, without_secrets
from gateways.smtp import settings
from gateways.smtp.dkim_keys import PrivateKey
from gateways.smtp.gateway import SmtpGateway
from gateways.smtp.settings import ImapSettings, SmtpSettings, parse, short_keys

PAGE = Path(settings.__file__).with_name("PROVIDERS.md")
NAME = "s1._domainkey.example.org"
IMAP = {"host": "imap.example.org", "username": "bounces", "password": "secret"}


def pem(key: PrivateKey | ec.EllipticCurvePrivateKey, passphrase: bytes = b"") -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption(),
    ).decode()


ED25519 = ed25519.Ed25519PrivateKey.generate()
SHORT = rsa.generate_private_key(65_537, 1024)  # noqa: S505 - as short as verifiers take


def signing(text: str, name: str = NAME) -> dict[str, Any]:
    return {"dkim": {name: {"private_key": text}}}


def test_nothing_given_is_every_default() -> None:
    assert parse({}) == SmtpSettings()


def test_a_greylisted_mail_is_tried_for_two_days() -> None:
    assert sum(SmtpSettings().retry_s[:5]) == pytest.approx(13_800)
    assert 46 * 3600 <= sum(SmtpSettings().retry_s) <= 50 * 3600


def test_what_is_given_is_kept() -> None:
    given = parse(
        {
            "connections": 3,
            "starttls": "require",
            "bounce_address": "b+{token}@bounces.example.org",
            "imap": IMAP,
            **signing(pem(ED25519)),
        }
    )
    assert (given.connections, given.starttls) == (3, "require")
    assert given.imap == ImapSettings(
        host="imap.example.org",
        username="bounces",
        password="secret",  # noqa: S106
    )
    assert list(given.dkim) == [NAME]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"conections": 10}, "conections"),
        ({"connections": 0}, "connections"),
        ({"connections": 201}, "connections"),
        ({"starttls": "maybe"}, "starttls"),
        ({"starttls": "maybe"}, "one of never, offer, require"),
        ({"auth": "ntlm"}, "auth"),
        ({"imap": {**IMAP, "tls": "maybe"}}, "one of implicit, never, starttls"),
        ({"dot_timeout_s": 0}, "dot_timeout_s"),
        ({"dot_timeout_s": 2_800}, "dot_timeout_s"),
        ({"retry_s": [0]}, "retry_s"),
        ({"retry_s": [60] * 101}, "retry_s"),
        ({"bounce_wait_s": 604_801}, "bounce_wait_s"),
        ({"unknown": "twice"}, "unknown"),
        ({"suppress_most_percent": 0}, "suppress_most_percent"),
        ({"suppress_most_percent": 101}, "suppress_most_percent"),
        # addresses
        ({"from_address": "nobody"}, "from_address"),
        ({"from_address": "a@example.org\r\nBcc: b@example.org"}, "from_address"),
        ({"from_address": " a@example.org"}, "from_address"),
        ({"from_name": "a\r\nBcc: b@example.org"}, "from_name"),
        ({"from_name": "x" * 255}, "from_name"),
        ({"reply_to": "A <a@example.org>"}, "reply_to"),
        ({"bounce_address": "bounces@example.org"}, "bounce_address"),
        ({"bounce_address": "{token}{token}@example.org"}, "bounce_address"),
        ({"bounce_address": "{token}+{name}@example.org"}, "bounce_address"),
        ({"bounce_address": "b@{token}.example.org"}, "bounce_address"),
        ({"bounce_address": "{token}@{token}.example.org"}, "bounce_address"),
        ({"bounce_address": "x" * 41 + "{token}@example.org"}, "bounce_address"),
        ({"bounce_address": "{token}\n@example.org"}, "bounce_address"),
        # IMAP
        ({"imap": {"host": "imap.example.org"}}, "imap"),
        ({"imap": {**IMAP, "folde": "x"}}, "folde"),
        ({"imap": {**IMAP, "host": ""}}, "imap.host"),
        ({"imap": {**IMAP, "poll_s": 1}}, "imap"),
        ({"imap": {**IMAP, "port": 65_536}}, "imap"),
        ({"imap": {**IMAP, "folder": "a\r\nb"}}, "imap.folder"),
        ({"imap": {**IMAP, "password": "a\0b"}}, "imap.password"),
        ({"imap": {**IMAP, "after": "move"}}, "imap.move_to"),
        ({"imap": {**IMAP, "move_to": "Done"}}, "imap.move_to"),
        ({"imap": {**IMAP, "after": "move", "move_to": "INBOX"}}, "imap.move_to"),
        # DKIM
        ({"dkim": {"example.org": {"private_key": pem(ED25519)}}}, "example.org"),
        ({"dkim": {"s_1._domainkey.example.org": {}}}, "s_1._domainkey.example.org"),
        ({"dkim": {"._domainkey.example.org": {}}}, "._domainkey.example.org"),
        ({"dkim": {"s1._domainkey.org": {}}}, "s1._domainkey.org"),
        ({"dkim": {"s1._domainkey.a\r\nb.org": {}}}, "domain"),
        ({"dkim": {f"s{n}._domainkey.example.org": {} for n in range(33)}}, "32"),
        ({"dkim": {NAME: {"key": "x"}}}, "key"),
        (signing("no key"), NAME),
        (signing(pem(ED25519, b"passphrase")), "passphrase"),
        (signing(pem(ec.generate_private_key(ec.SECP256R1()))), "RSA or Ed25519"),
        (signing(pem(rsa.generate_private_key(65_537, 4104))), "1024 to 4096"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidError, match=re.escape(named)) as refused:
        parse(given)
    assert refused.value.field in {"settings", ""}
    assert "BEGIN" not in str(refused.value)


def test_a_bounce_address_may_be_as_long_as_an_address() -> None:
    local = "x" * 40 + "{token}"
    assert parse({"bounce_address": f"{local}@example.org"}).bounce_address


NEVER = {"starttls": "never"}


@pytest.mark.parametrize(
    ("row", "settings"),
    [
        ({"host": "relay.example.org", "username": "us"}, {}),
        ({"host": "relay.example.org", "username": "us"}, {"starttls": "offer"}),
        ({"host": "relay.example.org", "username": "us"}, {**NEVER, "auth_without_tls": True}),
        # TLS was there before STARTTLS could be.
        ({"host": "relay.example.org", "username": "us", "transport": "tls"}, NEVER),
        ({"host": "relay.example.org"}, NEVER),
        ({}, NEVER),
    ],
)
def test_rows_that_mail_can_leave_by(row: dict[str, Any], settings: dict[str, Any]) -> None:
    SmtpGateway(Config()).check(provider(settings, **row))


@pytest.mark.parametrize(
    ("row", "settings", "named"),
    [
        ({"username": "us"}, {}, "username: only a relay"),
        ({"transport": "tls"}, {}, "transport: only a relay"),
        ({"host": "relay.example.org", "transport": "udp"}, {}, "transport: one of tcp, tls"),
        ({"host": "relay.example.org", "username": "us"}, NEVER, "username: a login needs TLS"),
    ],
)
def test_what_no_connection_could_do_is_refused(
    row: dict[str, Any], settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidError, match=named) as refused:
        SmtpGateway(Config()).check(provider(settings, **row))
    assert refused.value.field == named.split(":", maxsplit=1)[0]


def provider(settings: dict[str, Any], **row: Any) -> Provider:
    return Provider(**{"name": "p", "type": "smtp", "transport": "tcp", **row}, settings=settings)


def test_short_keys_are_taken_with_a_warning() -> None:
    parsed = parse(signing(pem(SHORT)))
    assert short_keys(parsed) == [NAME]
    assert short_keys(parse(signing(pem(ED25519)))) == []
    assert short_keys(parse({"dkim": {NAME: {}}})) == []


def test_what_is_secret_is_not_in_a_log() -> None:
    parsed = parse({"imap": IMAP, **signing(pem(ED25519))})
    assert "BEGIN" not in repr(parsed)
    assert "password='secret'" not in repr(parsed)


@pytest.mark.parametrize("name", [NAME, "s1._domainkey.secretgarden.example"])
async def test_keys_are_sealed_never_shown_and_survive_an_edit(tmp_path: Path, name: str) -> None:
    given = {"connections": 2, "imap": IMAP, **signing(pem(ED25519), name)}
    provider = Provider(name="p", type="smtp", settings=given)
    secrets = Secrets(Config(node=NodeConfig(data_dir=str(tmp_path))))
    sealed = await secrets.sealed(provider)
    assert "BEGIN PRIVATE KEY" not in str(sealed)
    assert "'secret'" not in str(sealed)
    seen = without_secrets(sealed.settings)
    assert "sealed" not in str(seen)
    assert parse(hidden(sealed).settings).dkim.keys() == {name}
    edited = keeping_secrets(sealed.settings, {**seen, "connections": 3})
    opened = await secrets.opened(
        Provider(id=sealed.id, uid=sealed.uid, name="p", type="smtp", settings=edited)
    )
    assert parse(opened.settings) == parse({**given, "connections": 3})


def test_the_page_has_every_setting_and_no_other() -> None:
    rows = re.findall(r"^\| (`.+?) \|", PAGE.read_text(), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([\w.]+)`", row)]
    states = {"initiated", "connected", "completed", "failed", "pending"}
    imap = [f"imap.{name}" for name in ImapSettings.__struct_fields__]
    expected = [name for name in SmtpSettings.__struct_fields__ if name != "imap"] + imap
    assert sorted(set(named) - states) == sorted(expected)


def test_the_pages_examples_are_providers() -> None:
    rows = [
        json.loads(block) for block in re.findall(r"```json\n(.+?)```", PAGE.read_text(), re.DOTALL)
    ]
    providers = [row for row in rows if "type" in row]
    assert any("imap" in row["settings"] for row in providers)
    for row in providers:
        SmtpGateway(Config()).check(Provider(**{"transport": "tcp", **row}))
