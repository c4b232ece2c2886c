"""How ICTCore's replies look as the guide documents them.

Creates answer ``{"contact_id": 1}``, statuses ``{"status": "completed"}``, deeds without a result a
bare ``true`` (never an empty body: deployed clients take that for a failure), ids are numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import orjson
from quart import Response, request

from api.ictcore.errors import describe
from api.paging import DEFAULT_LIMIT
from api.routing import Changed, Created, Done, File, Item, Reply, Route, Rows, Status, Value
from engine.errors import ThrottledError

MAX_ANSWER_OCTETS = 16_000_000
"""Of a list: rows may hold others, so it may be longer than what was read for it."""

_UNSAFE = re.compile(r"[^A-Za-z0-9 ._()+@-]")


class Guide:
    """The guide's mount."""

    def render(self, reply: Reply) -> Response:
        """The response to a request that was served: always 200."""
        if isinstance(reply, File):
            return _download(reply)
        if isinstance(reply, Rows):
            return self._page(reply)
        return self._json(self.spell(reply), 200)

    def spell(self, reply: Reply) -> Any:
        """What a reply says, as JSON values."""
        match reply:
            case Created(key, id_):
                return {key: id_}
            case Item(view) | Changed(view):
                return msgspec.to_builtins(view)
            case Rows(views):
                return [self.row(view) for view in views]
            case Status(status):
                return {"status": status}
            case Value(value):
                return {"value": value}
            case _:
                return True

    def row(self, view: Any) -> Any:
        """One object of a list, as JSON values."""
        return msgspec.to_builtins(view)

    def schema(self, route: Route, of: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """JSON Schema of what ``spell`` makes of the route's answer."""
        fixed: dict[type, dict[str, Any]] = {
            Created: _object(str(route.view), {"type": "integer"}),
            Status: _object("status", {"type": "string"}),
            Value: _object("value", {}),
            Done: {"const": True},
        }
        if route.answer is Rows:
            return {"type": "array", "items": of(route.view)}
        return fixed[route.answer] if route.answer in fixed else of(route.view)

    def components(self, _views: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Views are shown as they are."""
        return {}

    def refuse(self, error: Exception) -> Response:
        """ICTCore's error body."""
        status, message = describe(error, request.path)
        response = self._json({"error": {"code": status, "message": message}}, status)
        if status == 401:  # noqa: PLR2004 - Unauthorized
            response.headers["WWW-Authenticate"] = 'Bearer, Basic realm="Outspool", charset="UTF-8"'
        if isinstance(error, ThrottledError):
            response.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
        return response

    def _page(self, rows: Rows) -> Response:
        """Row by row: what else runs beside it has its turn in between (see ``web``)."""
        pieces: list[bytes] = []
        size = 0
        for view in rows.views:
            piece = orjson.dumps(self.row(view))
            size += len(piece)
            if pieces and size > MAX_ANSWER_OCTETS:
                break
            pieces.append(piece)
        response = self._labelled(b"[" + b",".join(pieces) + b"]", 200)
        if rows.more or len(pieces) < len(rows.views):
            response.headers["Link"] = f'<{_next_page(len(pieces))}>; rel="next"'
        if rows.total is not None:
            response.headers["X-Total-Count"] = str(rows.total)
        return response

    def _json(self, value: Any, status: int) -> Response:
        return self._labelled(orjson.dumps(value), status)

    def _labelled(self, body: bytes, status: int) -> Response:
        return Response(body, status, content_type="application/json")


def _object(key: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [key], "properties": {key: schema}}


def _download(file: File) -> Response:
    response = Response(file.chunks, 200, content_type=file.content_type)
    response.headers["Content-Disposition"] = _attachment(file.name)
    if file.length is not None:
        response.content_length = file.length
    return response


def _attachment(name: str) -> str:
    """Content-Disposition (RFC 6266 §4): a name that can end neither its quotes nor the line."""
    plain = _UNSAFE.sub("_", name)
    if plain == name:
        return f'attachment; filename="{name}"'
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _next_page(shown: int) -> str:
    args = request.args.to_dict()
    args["offset"] = str(int(args.get("offset") or 0) + shown)
    args["limit"] = args.get("limit") or str(DEFAULT_LIMIT)
    return f"{quote(request.path)}?{urlencode(args)}"
