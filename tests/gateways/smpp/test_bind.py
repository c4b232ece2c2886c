"""A bind over real sockets: connecting, TLS, draining, ending."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateways.smpp.events import Answered, Closed, Delivered, Event
from gateways.smpp.pdu import Command
from tests.gateways.smpp.faulty import (
    Peer,
    deliver_body,
    faulty_smsc,
    pdu,
    silence,
    submit_resp,
)
from tests.gateways.smpp.seat import BODY, PATIENCE_S, fates, seated, tally


async def good(peer: Peer) -> None:
    await peer.bind()
    await peer.serve()


async def test_messages_go_out_and_are_answered() -> None:
    async with faulty_smsc(good) as smsc, seated(smsc.port, window=100) as seat:
        await seat.until_bound()
        seat.submit(range(100))
        await seat.until_told(100)
        await seat.bind.unbind(PATIENCE_S)
        closed = await seat.until_over()
    assert tally(seat.events) == {"answered 0x0": 100}
    assert closed == Closed("unbound", clean=True)
    assert seat.events[-1] is closed
    assert seat.bind.session.peer == "faulty"
    (peer,) = smsc.peers
    assert [one.body for one in peer.submits()] == [BODY] * 100
    assert peer.got[-1].command == Command.UNBIND


async def test_the_bind_says_who_we_are() -> None:
    async with faulty_smsc(good) as smsc, seated(smsc.port, system_type="outs") as seat:
        await seat.until_bound()
    assert smsc.got[0].command == Command.BIND_TRANSCEIVER
    assert smsc.got[0].body == b"esme\0secret\0outs\0\x34\0\0\0"


async def test_delivery_waits_for_the_owners_answer() -> None:
    async def script(peer: Peer) -> None:
        await peer.bind()
        await peer.send(pdu(Command.DELIVER_SM, 0, 77, deliver_body(b"Yes")))
        await peer.serve()

    async with faulty_smsc(script) as smsc, seated(smsc.port) as seat:
        await seat.until(lambda: bool(seat.found(Delivered)))
        (delivered,) = seat.found(Delivered)
        assert delivered.message.octets == b"Yes"
        assert not [one for one in smsc.got if one.command == Command.DELIVER_SM_RESP]
        seat.bind.session.answer(delivered.sequence, 0x64)
        seat.bind.poke()
        await seat.bind.unbind(PATIENCE_S)
    answers = [one for one in smsc.got if one.command == Command.DELIVER_SM_RESP]
    assert [(one.status, one.sequence, one.body) for one in answers] == [(0x64, 77, b"\0")]


async def test_unbind_waits_for_the_answers() -> None:
    unbinding = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.bind()
        submits = await peer.expect_submits(3)
        await unbinding.wait()
        await peer.send(*[submit_resp(one) for one in submits])
        await peer.serve()

    async with faulty_smsc(script) as smsc, seated(smsc.port) as seat:
        await seat.until_bound()
        seat.submit("abc")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(seat.bind.unbind, PATIENCE_S)
            await trio.testing.wait_all_tasks_blocked()
            assert seat.bind.session.room == 0
            unbinding.set()
        closed = await seat.until_over()
    assert tally(seat.events) == {"answered 0x0": 3}
    assert closed.clean


async def test_unbind_does_not_wait_for_ever() -> None:
    async def script(peer: Peer) -> None:
        await peer.bind()
        await peer.expect(Command.UNBIND)

    async with faulty_smsc(script) as smsc, seated(smsc.port) as seat:
        await seat.until_bound()
        seat.submit("abc")
        await seat.bind.unbind(0.05)
        closed = await seat.until_over()
    assert (closed.clean, closed.in_flight) == (True, ("a", "b", "c"))


async def test_cancelling_says_what_is_in_flight() -> None:
    async def script(peer: Peer) -> None:
        await peer.bind()
        await peer.expect_submits(2)
        smsc.ended.set()
        await silence(peer)

    async with faulty_smsc(script) as smsc:
        async with seated(smsc.port) as seat:
            await seat.until_bound()
            seat.submit("ab")
            with trio.fail_after(PATIENCE_S):
                await smsc.ended.wait()
        assert seat.events[-1] == Closed("cancelled", clean=False, in_flight=("a", "b"))


async def test_events_are_told_in_order_and_one_call_at_a_time() -> None:
    """Reader and timer both have something to tell while the owner is still at it."""
    told: list[Event] = []
    inside, release = trio.Event(), trio.Event()

    async def slowly(events: list[Event]) -> None:
        assert not told or told[-1] is not None
        told.append(None)  # type: ignore[arg-type]  # somebody is in here
        if any(isinstance(one, Answered) for one in events):
            inside.set()
            await release.wait()
        told.pop()
        told.extend(events)

    async def script(peer: Peer) -> None:
        await peer.bind()
        first, *_ = await peer.expect_submits(3)
        await peer.send(submit_resp(first))
        while await peer.read():
            pass

    async with (
        faulty_smsc(script) as smsc,
        seated(smsc.port, response_timeout_s=0.2, enquire_link_s=0.2) as seat,
    ):
        seat.bind._on_events = slowly
        with trio.fail_after(PATIENCE_S):
            while seat.bind.session.room == 0:
                await trio.testing.wait_all_tasks_blocked(0.01)
            seat.submit("abc")
            await inside.wait()
            while seat.bind.session.in_flight:  # the timer gave up the other two
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert seat.bind._turn.locked()
        release.set()
        await seat.until_over()
    assert [type(one).__name__ for one in told] == [
        "Bound", "Answered", "Unanswered", "Unanswered", "Closed",
    ]  # fmt: skip


async def test_nobody_listens() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with seated(port) as seat:
        closed = await seat.until_over()
    assert closed.reason.startswith("connection: ")
    assert "refused" in closed.reason  # the system's word, not that all attempts failed
    assert seat.events == [closed]


async def test_login_that_smpp_cannot_hold() -> None:
    async with (
        faulty_smsc(good) as smsc,
        seated(smsc.port, password="longer than eight") as seat,  # noqa: S106
    ):
        closed = await seat.until_over()
    assert "password" in closed.reason
    assert "longer than eight" not in closed.reason
    assert smsc.peers == []


async def test_peer_that_never_reads() -> None:
    """What was taken for writing may have left, what came after certainly did not."""

    async def script(peer: Peer) -> None:
        await peer.bind()
        await silence(peer)

    large = BODY + b"\x04\x24\xea\x60" + bytes(60_000)
    async with (
        faulty_smsc(script, receive_buffer=4096) as smsc,
        seated(smsc.port, window=1000, response_timeout_s=2.0) as seat,
    ):
        await seat.until_bound()
        seat.submit(range(200), large)
        while seat.bind.session.has_output:  # the writer has not taken it yet
            await trio.lowlevel.checkpoint()
        seat.submit(range(200, 300))
        closed = await seat.until_over()
    told = fates(seat.events)
    left = {token for token, words in told.items() if words[0] in ("in flight", "unanswered")}
    assert left == set(range(200))
    assert closed.unsent == tuple(range(200, 300))


async def test_what_the_kernel_does_not_take_at_once_follows_in_order() -> None:
    """Each request is written as it is made, until the peer's buffers are full."""
    reading = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.bind()
        await reading.wait()
        await peer.serve()

    bodies = [BODY + b"\x04\x24\xea\x60" + bytes([number]) * 60_000 for number in range(200)]
    async with (
        faulty_smsc(script, receive_buffer=4096) as smsc,
        seated(smsc.port, window=1000) as seat,
    ):
        await seat.until_bound()
        for number, body in enumerate(bodies):
            seat.submit([number], body)
        reading.set()
        await seat.until_told(200)
        await seat.bind.unbind(PATIENCE_S)
    assert [one.body for one in smsc.peers[0].submits()] == bodies
    assert set(fates(seat.events)) == set(range(200))


# --- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two self-signed certificates: good.pem for localhost, other.pem for another name."""
    folder = tmp_path_factory.mktemp("certificates")
    for name, host in (("good", "localhost"), ("other", "smsc.example.com")):
        key = ec.generate_private_key(ec.SECP256R1())
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        (folder / f"{name}.pem").write_bytes(_certificate(key, host))
    return folder


def _certificate(key: ec.EllipticCurvePrivateKey, host: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - dt.timedelta(days=1),
        not_valid_after=now + dt.timedelta(days=1),
    )
    names = x509.SubjectAlternativeName([x509.DNSName(host)])
    made = (
        builder.add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def _server(folder: Path, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


async def polite(peer: Peer) -> None:
    """As ``good``, for peers that may go without a bind."""
    await peer.serve()


async def test_tls_with_a_certificate_of_our_ca(certificates: Path) -> None:
    ca_file = str(certificates / "good.pem")
    async with (
        faulty_smsc(good, tls=_server(certificates, "good")) as smsc,
        seated(smsc.port, transport="tls", ca_file=ca_file) as seat,
    ):
        await seat.until_bound()
        seat.submit(range(10))
        await seat.until_told(10)
        await seat.bind.unbind(PATIENCE_S)
        closed = await seat.until_over()
    assert tally(seat.events) == {"answered 0x0": 10}
    assert closed.clean


@pytest.mark.parametrize(
    ("server", "trusted", "cause"),
    [
        ("good", "other", "self-signed certificate"),  # nobody we trust signed it
        ("other", "other", "Hostname mismatch"),  # it is somebody else's
        ("good", "", "self-signed certificate"),  # the system's CAs do not know it
    ],
)
async def test_tls_refused(certificates: Path, server: str, trusted: str, cause: str) -> None:
    ca_file = str(certificates / f"{trusted}.pem") if trusted else ""
    async with (
        faulty_smsc(polite, tls=_server(certificates, server)) as smsc,
        seated(smsc.port, transport="tls", ca_file=ca_file) as seat,
    ):
        closed = await seat.until_over()
    assert cause in closed.reason
    assert smsc.got == []  # above all no password


async def test_tls_unverified_where_the_provider_says_so(certificates: Path) -> None:
    async with (
        faulty_smsc(good, tls=_server(certificates, "other")) as smsc,
        seated(smsc.port, transport="tls", verify_tls=False) as seat,
    ):
        await seat.until_bound()


async def test_ca_file_that_is_not_there(certificates: Path) -> None:
    async with (
        faulty_smsc(polite) as smsc,
        seated(smsc.port, transport="tls", ca_file=str(certificates / "none.pem")) as seat,
    ):
        closed = await seat.until_over()
    assert closed.reason.startswith("connection: CA file: ")
    assert "No such file" in closed.reason


async def test_handshake_that_hangs_ends_with_the_bind_timeout() -> None:
    async with (
        faulty_smsc(silence) as smsc,
        seated(smsc.port, transport="tls", verify_tls=False, bind_timeout_s=0.1) as seat,
    ):
        closed = await seat.until_over()
    assert closed.reason == "no connection within 0.1 s"


async def test_unbind_before_there_is_a_connection() -> None:
    async with (
        faulty_smsc(silence) as smsc,
        seated(smsc.port, transport="tls", verify_tls=False) as seat,
    ):
        with trio.fail_after(PATIENCE_S):
            while not smsc.peers:
                await trio.testing.wait_all_tasks_blocked(0.01)
        await seat.bind.unbind(PATIENCE_S)
        closed = await seat.until_over()
    assert closed.reason == "unbound before the bind was answered"
    assert closed.clean
