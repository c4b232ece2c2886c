"""Trunks: transport, certificate, credentials, registration, against an independent far end."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from engine.model import Provider
from engine.results import Blame, Disposition, Result
from gateways.sip.gateway import SipGateway
from tests.gateways.sip.harness import SipHarness, config, running, trunk
from tests.suites.gateway_suite import Delivery, play
from tests.support import LOCALHOST, free_port, wait_until
from tests.support.uas import Dialog, challenge, digest_holds, run_uas, sdp

# Everything a password may hold that a header may not.
PASSWORD = 'pa"ss\\word:1'  # noqa: S105
WRONG = "wrong"


@asynccontextmanager
async def sip(tmp_path: Path, **fields: Any) -> AsyncIterator[SipHarness]:
    async with running(SipGateway(config(transaction_timeout_s=3.0, **fields))) as gateway:
        yield SipHarness(gateway, tmp_path)


async def call(harness: SipHarness, provider: Provider, **fields: Any) -> Result:
    return await Delivery(harness, provider, partial(play, harness.media), **fields).run()


async def answering(dialog: Dialog) -> None:
    await dialog.answer(sdp())
    await dialog.until_bye()


async def test_tcp(tmp_path: Path) -> None:
    async with sip(tmp_path) as harness, run_uas(answering, "tcp") as uas:
        result = await call(harness, trunk(uas))
    assert result.disposition is Disposition.ANSWERED
    assert "transport=tcp" in uas.messages[0].start


async def test_tcp_refused_blames_the_trunk_and_has_reached_nothing(tmp_path: Path) -> None:
    async with sip(tmp_path) as harness:
        provider = Provider(id=1, name="x", host=LOCALHOST, port=free_port(), transport="tcp")
        result = await call(harness, provider)
    assert (result.disposition, result.cause) == (Disposition.FAILED, "trunk_unreachable")
    assert result.trunk_failed


def certificate(folder: Path, name: str, *, issuer: str = "") -> tuple[Path, Path]:
    """A self-signed certificate for ``name`` (also an address), and its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    if name[0].isdigit():
        names = [x509.IPAddress(ipaddress.ip_address(name))]
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    cert_path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
    cert_path.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return cert_path, key_path


def server(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_ciphers("DEFAULT@SECLEVEL=0")  # the wheel's OpenSSL is 1.0.2
    return context


@pytest.mark.parametrize(
    ("host", "named", "flaw"),
    [
        ("localhost", "localhost", ""),
        (LOCALHOST, LOCALHOST, ""),
        ("localhost", "other.example", "name"),
        ("localhost", "localhost", "issuer"),
    ],
    ids=["right", "address", "wrong-name", "untrusted"],
)
async def test_tls_talks_only_to_the_one_it_dialled(
    tmp_path: Path, host: str, named: str, flaw: str
) -> None:
    cert, key = certificate(tmp_path / "far", named)
    ca_file = certificate(tmp_path / "ca", named)[0] if flaw == "issuer" else cert
    async with (
        sip(tmp_path, ca_file=str(ca_file)) as harness,
        run_uas(answering, "tls", server(cert, key)) as uas,
    ):
        uas.name = host
        result = await call(harness, trunk(uas, host=host))
    if not flaw:
        assert result.disposition is Disposition.ANSWERED
    else:
        assert (result.disposition, result.cause) == (Disposition.FAILED, "trunk_certificate")
        assert result.trunk_failed
        assert not uas.messages


async def demanding(dialog: Dialog, status: str = "407 Proxy Authentication Required") -> None:
    """Let nobody in without the right digest (RFC 3261 §22)."""
    proxy = status.startswith("407")
    header = "Proxy-Authorization" if proxy else "Authorization"
    asking = f"{'Proxy' if proxy else 'WWW'}-Authenticate: {challenge()}"
    await dialog.respond(dialog.invite, status, "", asking)
    await dialog.expect("ACK")
    again = await dialog.expect("INVITE")
    if not digest_holds(again, header, "alice", PASSWORD):
        await dialog.respond(again, status, "", asking)
        await dialog.expect("ACK")
        return
    dialog.invite = again
    await answering(dialog)


@pytest.mark.parametrize("status", ["401 Unauthorized", "407 Proxy Authentication Required"])
async def test_digest_accepted(tmp_path: Path, status: str) -> None:
    script = partial(demanding, status=status)
    async with sip(tmp_path) as harness, run_uas(script) as uas:
        result = await call(harness, trunk(uas, username="alice", password=PASSWORD))
    assert result.disposition is Disposition.ANSWERED


async def test_digest_refused(tmp_path: Path) -> None:
    async with sip(tmp_path) as harness, run_uas(demanding) as uas:
        result = await call(harness, trunk(uas, username="alice", password=WRONG))
    assert (result.disposition, result.cause) == (Disposition.FAILED, "trunk_authentication")
    assert result.blame is Blame.PROVIDER


async def test_more_trunks_than_accounts_fit_into_one_worker(tmp_path: Path) -> None:
    """pjsua aborts at the ninth account: they are reused, and never with another's password."""
    async with sip(tmp_path, workers_max=1) as harness, run_uas(demanding) as uas:
        for number in range(1, 13):
            good = trunk(uas, id=number, username="alice", password=PASSWORD)
            assert (await call(harness, good)).disposition is Disposition.ANSWERED
        wrong = trunk(uas, id=3, username="alice", password=WRONG)
        assert (await call(harness, wrong)).cause == "trunk_authentication"
    assert harness.gateway.statistics()["worker_deaths"] == 0


class Registrar:
    """Takes REGISTER with digest; answers calls of the registered user likewise."""

    def __init__(self) -> None:
        self.bound: list[str] = []

    async def __call__(self, dialog: Dialog) -> None:
        if dialog.invite.method == "INVITE":
            await demanding(dialog)
            return
        request = dialog.invite
        while True:
            if digest_holds(request, "Authorization", "alice", PASSWORD):
                self.bound.append(request.header("Expires"))
                await dialog.respond(request, "200 OK", "", f"Expires: {self.bound[-1]}")
            else:
                asking = f"WWW-Authenticate: {challenge()}"
                await dialog.respond(request, "401 Unauthorized", "", asking)
            request = await dialog.expect_late("REGISTER")


def state(harness: SipHarness) -> str:
    found: str = harness.gateway.statistics()["registrations"]["1"]["state"]
    return found


async def test_registration_is_kept_seen_and_given_up(tmp_path: Path) -> None:
    registrar = Registrar()
    async with run_uas(registrar) as uas, sip(tmp_path) as harness:
        provider = trunk(uas, username="alice", password=PASSWORD, register=True)
        await harness.gateway.providers({1: provider})

        async def registered() -> bool:
            return state(harness) == "registered"

        await wait_until(registered, "registered")
        assert (await call(harness, provider)).disposition is Disposition.ANSWERED
        await harness.gateway.providers({})

        async def left() -> bool:
            return registrar.bound[-1] == "0"  # unregistered (RFC 3261 §10.2.2)

        await wait_until(left, "unregistered")
        assert harness.gateway.statistics()["registrations"] == {}


async def test_a_bad_password_makes_the_trunk_unhealthy_with_its_cause(tmp_path: Path) -> None:
    async with run_uas(Registrar()) as uas, sip(tmp_path) as harness:
        provider = trunk(uas, username="alice", password=WRONG, register=True)
        await harness.gateway.providers({1: provider})

        async def refused() -> bool:
            return state(harness) == "refused"

        await wait_until(refused, "refused")
        result = await call(harness, provider)
    assert (result.cause, result.trunk_failed) == ("registration_unauthorized", True)


async def test_a_name_nobody_knows_blames_the_trunk(tmp_path: Path) -> None:
    async with sip(tmp_path) as harness:
        provider = Provider(id=1, name="x", host="nobody.invalid", port=5060)
        result = await call(harness, provider)
    assert (result.cause, result.trunk_failed) == ("name_not_resolved", True)


@pytest.mark.parametrize(
    "fields",
    [{"host": "a\r\nX: y"}, {"username": 'a"b'}, {"transport": "sctp"}, {"port": 0}],
    ids=["host", "username", "transport", "port"],
)
async def test_a_trunk_that_cannot_be_written_is_refused(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    async with sip(tmp_path) as harness:
        values: dict[str, Any] = {"id": 1, "name": "x", "host": LOCALHOST} | fields
        provider = Provider(**values)
        result = await call(harness, provider)
    assert result.trunk_failed
    assert result.cause == f"invalid_{next(iter(fields))}"


async def test_nothing_in_an_order_becomes_a_header(tmp_path: Path) -> None:
    async def refuse(dialog: Dialog) -> None:
        await dialog.respond(dialog.invite, "486 Busy Here")
        await dialog.expect("ACK")

    async with sip(tmp_path) as harness, run_uas(refuse) as uas:
        delivery = Delivery(harness, trunk(uas), partial(play, harness.media))
        fields = {name: getattr(delivery.order, name) for name in delivery.order.__struct_fields__}
        fields |= {
            "destination": "1;x=1@evil.example?Subject=x&a",
            "caller_name": 'Eve" <sip:evil@evil.example>\r\nX-Evil: 1\\',
            "caller_id": "49>;tag=1",
        }
        delivery.order = type(delivery.order)(**fields)
        result = await delivery.run()
    invite = uas.messages[0]
    assert result.disposition is Disposition.BUSY
    assert not invite.header("X-Evil")
    assert invite.start.split("@")[-1].startswith(f"{LOCALHOST}:")
    # Quoted name, then one URI whose user part took the rest (pjsip writes ";" plainly: §25.1).
    assert f"<sip:49%3e;tag=1@{LOCALHOST}>;tag=" in invite.header("From")


async def test_the_asserted_identity_goes_only_to_trunks_that_ask_for_it(tmp_path: Path) -> None:
    async def refuse(dialog: Dialog) -> None:
        await dialog.respond(dialog.invite, "486 Busy Here")
        await dialog.expect("ACK")

    async with sip(tmp_path, workers_max=1) as harness, run_uas(refuse) as uas:
        for settings in ({"p_asserted_identity": True}, {}):
            for _ in range(4):  # every pooled call of the worker
                await call(harness, trunk(uas, settings=settings))
    seen = [m.header("P-Asserted-Identity") for m in uas.messages if m.method == "INVITE"]
    assert seen == [f"<sip:4930123@{LOCALHOST}>"] * 4 + [""] * 4
