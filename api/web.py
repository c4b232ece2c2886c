"""The web application: every dialect's routes on one Quart-Trio app, and what all of them share."""

from __future__ import annotations

import re
from typing import Any, cast
from uuid import uuid4

import orjson
import structlog
import trio
from quart import Request, Response, g, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from api.body import StreamRequest
from api.cors import mount_cors
from api.credentials import asking_address, authenticate
from api.docs import mount_docs
from api.ictcore import CLASSIC, ICTCORE
from api.openapi import document
from api.routing import Ask, Dialect, Route, Rows
from api.server import HttpConnection
from api.unsubscribe import mount_unsubscribe
from engine.app import Engine
from engine.auth import GUEST, Authenticator
from engine.errors import NotFoundError, OutspoolError

log = structlog.get_logger("api.web")

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (ICTCORE, CLASSIC)}
"""Every vocabulary. An unknown path is refused in the words of the one with the longest prefix."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PARAMETER = re.compile(r"\{(\w+)\}")


class WebApp(QuartTrio):
    """Quart with streamed bodies, and connections that close when idle."""

    asgi_http_class = HttpConnection
    request_class = StreamRequest
    authenticator: Authenticator

    async def handle_request(self, request: Request) -> Any:
        """Answer, once the request says what its dialect takes it to mean."""
        readdress = _dialect_of(request.path).readdress
        if readdress is not None:
            readdress(request)
        return await super().handle_request(request)


def create_app(engine: Engine) -> WebApp:
    """The application that serves ``engine``; makes the signing key when it is first started."""
    app = WebApp("outspool", static_folder=None)
    app.url_map.merge_slashes = False

    @app.before_serving
    async def open_authenticator() -> None:
        app.authenticator = await Authenticator.open(engine.people, engine.config)

    for dialect in DIALECTS.values():
        for route in dialect.routes:
            _mount(app, engine, dialect, route)
    _mount_own(app, engine)
    app.before_request(_begin)
    app.after_request(_end)
    mount_cors(app, engine.config.http.cors_origins)
    app.register_error_handler(Exception, _refuse)
    return app


def _mount(app: WebApp, engine: Engine, dialect: Dialect, route: Route) -> None:
    async def serve(**parts: int | str) -> Response:
        address = asking_address(
            request.remote_addr or "", request.headers, engine.config.http.trusted_proxies
        )
        who = GUEST
        if not route.public:
            who = await authenticate(request.headers, app.authenticator, address)
        asked = cast("StreamRequest", request)
        ask = Ask(engine, app.authenticator, who, parts, asked, address)
        reply = await route.handler(ask)
        if isinstance(reply, Rows):
            # Thousands of rows, or long ones: calls must not wait for them.
            return await trio.to_thread.run_sync(dialect.translator.render, reply)
        return dialect.translator.render(reply)

    app.add_url_rule(
        dialect.prefix + _PARAMETER.sub(_converter, route.path),
        endpoint=f"{dialect.name} {route.verb} {route.path}",
        view_func=serve,
        methods=[route.verb],
        provide_automatic_options=False,
    )


def _converter(parameter: re.Match[str]) -> str:
    kind = "int" if parameter[1].endswith("_id") else "string"
    return f"<{kind}:{parameter[1]}>"


def _mount_own(app: WebApp, engine: Engine) -> None:
    described = orjson.dumps(document(DIALECTS.values()))

    async def healthz() -> Response:
        health = engine.health()
        sound = health.get("ready", False) and health.get("store", "ok") == "ok"
        return _json(orjson.dumps(health), 200 if sound else 503)

    async def openapi() -> Response:
        return _json(described, 200)

    for path, view in (("/healthz", healthz), ("/openapi.json", openapi)):
        app.add_url_rule(path, endpoint=path, view_func=view, provide_automatic_options=False)
    mount_docs(app)
    mount_unsubscribe(app, engine)


def _json(body: bytes, status: int) -> Response:
    return Response(body, status, content_type="application/json")


async def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
    g.began = trio.current_time()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


async def _end(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.request_id
    response.headers.setdefault("Cache-Control", "no-store")
    # Names that people gave their rows are no pages, whatever they look like.
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    log.debug(
        "request",
        verb=request.method,
        path=request.path,
        status=response.status_code,
        took_ms=round((trio.current_time() - g.began) * 1000, 1),
    )
    return response


async def _refuse(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        # ICTCore knows no 405: a path with another verb is a path that does not exist.
        error = NotFoundError("Not Found")
    elif not isinstance(error, OutspoolError):
        log.error("request_failed", verb=request.method, path=request.path, exc_info=error)
    return _dialect_of(request.path).translator.refuse(error)


def _dialect_of(path: str) -> Dialect:
    fitting = (dialect for dialect in DIALECTS.values() if dialect.owns(path))
    return max(fitting, key=lambda dialect: len(dialect.prefix))
