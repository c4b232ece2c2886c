"""The HTTP server over real sockets: what hypercorn gets wrong, limits, shutdown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from api.server import serve_http
from api.web import create_app
from engine.config import HttpConfig
from tests.api.node import Node, made, made_program, running_node

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
DEADLINE_S = 20.0


async def read_answer(stream: trio.SocketStream) -> bytes:
    """One answer with a Content-Length or, where the peer closes, all there is."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = await stream.receive_some()
        if not chunk:
            return data
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    )
    while len(body) < length:
        body += await stream.receive_some()
    return head + b"\r\n\r\n" + body


async def until_closed(stream: trio.SocketStream) -> bytes:
    data = b""
    with trio.fail_after(DEADLINE_S):
        while chunk := await stream.receive_some():
            data += chunk
    return data


@pytest.mark.parametrize("requests", [0, 1, 3])
async def test_an_idle_connection_is_closed_however_many_requests_it_had(
    tmp_path: Path, requests: int
) -> None:
    async with (
        running_node(tmp_path, keep_alive_timeout_s=0.2) as node,
        await node.raw() as stream,
    ):
        for _ in range(requests):
            await stream.send_all(REQUEST)
            assert b" 200 " in await read_answer(stream)
        assert await until_closed(stream) == b""


async def test_many_requests_share_a_connection(node: Node) -> None:
    async with await node.raw() as stream:
        for _ in range(20):
            await stream.send_all(REQUEST)
            assert b" 200 " in await read_answer(stream)


async def test_a_client_that_stops_reading_does_not_hold_up_shutdown(tmp_path: Path) -> None:
    async with AsyncExitStack() as streams:
        with trio.fail_after(DEADLINE_S):
            async with running_node(tmp_path, shutdown_timeout_s=0.3) as node:
                stream = await streams.enter_async_context(await node.raw())
                await ask_without_reading(stream, node)
                node.shutdown.set()
                # Leaving the block waits for the server to end.


async def ask_without_reading(stream: trio.SocketStream, node: Node) -> None:
    """Pipeline requests until the server reads no more, because it cannot write."""
    for _ in range(40):
        await made(node.client, "/contacts", phone="1", description="x" * 255)
    token = node.client.headers["Authorization"].encode()
    ask = b"GET /contacts HTTP/1.1\r\nHost: x\r\nAuthorization: " + token + b"\r\n\r\n"
    stuck = False
    while not stuck:
        with trio.move_on_after(1) as sending:
            await stream.send_all(ask * 50)
        stuck = sending.cancelled_caught


async def test_shutdown_lets_a_request_in_progress_end(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        group = await made(node.client, "/groups", name="g")
        arrived = trio.Event()

        async def lines() -> AsyncIterator[bytes]:
            yield b"100\n"
            arrived.set()
            await node_shutting_down.wait()
            yield b"200\n"

        node_shutting_down = trio.Event()

        async def close() -> None:
            await arrived.wait()
            node.shutdown.set()
            node_shutting_down.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            response = await node.client.post(f"/groups/{group}/csv", content=lines())
        assert response.json()["imported"] == 2


async def test_connections_beyond_the_cap_wait_for_a_slot(tmp_path: Path) -> None:
    async with running_node(tmp_path, max_connections=2) as node, AsyncExitStack() as streams:
        first, second, third = [
            await streams.enter_async_context(await node.raw()) for _ in range(3)
        ]
        for stream in (first, second, third):
            await stream.send_all(REQUEST)
        for stream in (first, second):
            assert b" 200 " in await read_answer(stream)
        with trio.move_on_after(0.3) as waiting:
            await third.receive_some()
        assert waiting.cancelled_caught
        await first.aclose()
        with trio.fail_after(DEADLINE_S):
            assert b" 200 " in await read_answer(third)


async def test_a_body_over_the_limit_is_refused(tmp_path: Path) -> None:
    async with running_node(tmp_path, max_body_bytes=1000) as node:
        announced = await node.client.post("/contacts", content=b"x" * 1001)
        assert announced.status_code == 413
        assert announced.json()["error"]["code"] == 413

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"x" * 100

        unannounced = await node.client.post("/contacts", content=chunks())
        assert unannounced.status_code == 413
        assert (await node.client.post("/contacts", content=b"x" * 1000)).status_code == 412


async def test_a_large_unwanted_body_still_gets_its_answer(node: Node) -> None:
    nobody = await node.speaking()
    response = await nobody.put("/messages/recordings/1/media", content=bytes(20_000_000))
    assert response.status_code == 401


async def test_a_port_in_use_is_said(node: Node) -> None:
    app = create_app(node.engine)
    config = HttpConfig(port=node.port)
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="in use")):
        await serve_http(app, config, trio.Event())


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\xff\xfe garbage\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"POST /contacts HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_garbage_ends_its_own_connection_only(node: Node, request_bytes: bytes) -> None:
    async with await node.raw() as stream:
        await stream.send_all(request_bytes)
        await stream.send_eof()
        assert b" 500 " not in await until_closed(stream)
    assert (await node.client.get("/healthz")).status_code == 200


async def test_a_client_that_leaves_half_way_harms_nobody(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    group = await made(node.client, "/groups", name="g")
    lines = b"".join(b"%d\n" % number for number in range(12_000))
    await node.client.post(f"/groups/{group}/csv", content=lines)
    head = f"Host: x\r\nAuthorization: {node.client.headers['Authorization']}\r\n"
    requests = (
        f"POST /groups/{group}/csv HTTP/1.1\r\n{head}Content-Length: 1000000\r\n\r\n1\n2\n",
        f"GET /groups/{group}/csv HTTP/1.1\r\n{head}\r\n",
        f"POST /contacts HTTP/1.1\r\n{head}Content-Length: 10\r\n\r\n",
    )
    with capture_logs() as logged:
        for request in requests:
            async with await node.raw() as stream:
                await stream.send_all(request.encode())
                if request.startswith("GET"):
                    await stream.receive_some(100)
        # Connections are served in order of arrival: when this is answered the others were seen.
        assert (await node.client.get(f"/groups/{group}")).json()["contact_total"] == 12_000
    assert [entry for entry in logged if entry["log_level"] == "error"] == []
    assert caplog.records == []


async def test_what_nobody_foresaw_tells_nothing_of_itself(node: Node, tmp_path: Path) -> None:
    program = await made_program(node.client)
    recording = (await node.client.get(f"/programs/{program}")).json()["recording_id"]
    for path in (tmp_path / "media").glob("*.wav"):
        path.unlink()
    with capture_logs() as logged:
        response = await node.client.get(f"/messages/recordings/{recording}/media")
    assert response.status_code == 500
    assert response.json() == {"error": {"code": 500, "message": "Internal server error"}}
    (entry,) = [entry for entry in logged if entry["log_level"] == "error"]
    assert isinstance(entry["exc_info"], FileNotFoundError)


async def test_a_store_that_takes_nothing_is_said(node: Node) -> None:
    await node.engine.store.aclose()
    response = await node.client.get("/contacts")
    assert response.status_code == 423
    assert response.json()["error"]["code"] == 423
