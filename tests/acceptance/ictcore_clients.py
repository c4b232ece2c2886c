"""ICTCore's existing clients, as their code was read: the calls they send, the replies they bear.

Each is written from facts about a public client (specs/ictcore-client-calls.md), in our own words:
which headers and body it sends, and how strictly it reads what comes back.
"""

from __future__ import annotations

import io
import re
from typing import Any

import httpx
import orjson
import soundfile
from PIL import Image

JSON = "application/json"
FINAL = frozenset({"completed", "failed"})
RUNNING = frozenset({"pending", "processing", "scheduled", "ready"})
_INTEGER = re.compile(r"-?[0-9]+")


def pdf() -> bytes:
    """A document of one white page."""
    out = io.BytesIO()
    Image.new("1", (1728, 2200), 1).save(out, "PDF", resolution=204)
    return out.getvalue()


def wav() -> bytes:
    """A tenth of a second of silence."""
    out = io.BytesIO()
    soundfile.write(out, [0.0] * 800, 8000, format="WAV")
    return out.getvalue()


class Client:
    """Speaks to ``/api`` of a node, sending the headers it is given and no others of note."""

    def __init__(self, http: httpx.AsyncClient, **headers: str) -> None:
        self._http = http
        self._headers = headers

    async def send(
        self,
        verb: str,
        path: str,
        content: bytes = b"",
        headers: dict[str, str] | None = None,
        params: dict[str, Any] | None = None,
    ) -> httpx.Response:
        """One call, exactly as given: httpx adds neither Accept nor credentials of its own."""
        request = self._http.build_request(
            verb,
            f"/api{path}",
            content=content,
            params=params,
            headers={**self._headers, **(headers or {})},
        )
        if "Accept" not in {**self._headers, **(headers or {})}:
            del request.headers["Accept"]
        return await self._http.send(request)


class N8n(Client):
    """n8n-nodes-ictcore 0.1.2 and its ``ictCoreApiRequest``, ``extractId`` and ``toArray``."""

    async def call(
        self,
        verb: str,
        endpoint: str,
        body: dict[str, Any] | None = None,
        qs: dict[str, Any] | None = None,
    ) -> Any:
        """JSON both ways; an empty body is left out. A refusal is an exception, as in n8n."""
        headers = {"Accept": JSON}
        content = b""
        if body:
            headers["Content-Type"] = JSON
            content = orjson.dumps(body)
        response = await self.send(verb, endpoint, content, headers, qs)
        response.raise_for_status()
        reply = response.json()
        assert reply is not None, "n8n takes an undefined reply for an unsupported operation"
        return reply

    async def list(self, endpoint: str, **qs: Any) -> list[Any]:
        """Rows: an array, or an object of objects."""
        reply = await self.call("GET", endpoint, qs=qs)
        if isinstance(reply, list):
            return reply
        assert isinstance(reply, dict)
        return list(reply.values())

    async def upload(self, document_id: int, media: bytes, mime: str) -> None:
        """Raw bytes without an Accept; any 2xx will do."""
        path = f"/messages/documents/{document_id}/media"
        response = await self.send("PUT", path, media, {"Content-Type": mime})
        response.raise_for_status()

    @staticmethod
    def id(reply: Any, *keys: str) -> Any:
        """A number or a text as it is, else the first of ``keys`` that is there."""
        if isinstance(reply, int | str):
            return reply
        return next(reply[key] for key in keys if key in reply)

    async def is_done(self, transmission_id: Any) -> bool:
        """One turn of its wait for the end of a transmission."""
        reply = await self.call("GET", f"/transmissions/{transmission_id}/status")
        status = str(reply.get("status") if isinstance(reply, dict) else reply).lower()
        return bool(status) and status not in RUNNING


class Strict(Client):
    """The Go sender: 200 exactly, integers by exact conversion, rows into fields of text only.

    It posts JSON under an empty Content-Type.
    """

    async def text(self, verb: str, path: str, body: Any = None) -> str:
        """The reply's text."""
        content = b"" if body is None else orjson.dumps(body)
        response = await self.send(verb, path, content, {"Content-Type": ""})
        assert response.status_code == 200, f"{verb} {path}: {response.status_code}"
        assert response.text
        return response.text

    async def integer(self, verb: str, path: str, body: Any = None) -> int:
        """The reply as Go's ``strconv.Atoi`` reads it: no blank, no line end, no quotes."""
        text = await self.text(verb, path, body)
        assert _INTEGER.fullmatch(text), repr(text)
        return int(text)

    async def rows(self, path: str) -> list[dict[str, Any]]:
        """A list whose fields are all text or null, at every depth; one number spoils it."""
        rows = orjson.loads(await self.text("GET", path))
        assert isinstance(rows, list)
        for row in rows:
            _check_fields(row, path)
        return rows


def _check_fields(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_fields(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for inner in value:
            _check_fields(inner, f"{where}[]")
    else:
        assert value is None or isinstance(value, str), f"{where}: {value!r}"


class Php(Client):
    """ICTSchool and ICTHospital: an empty list for "no arguments", the id is what came back.

    They look at ``error`` in the reply, never at the status, and put replies into the next URL.
    """

    async def call(self, verb: str, path: str, arguments: dict[str, Any] | None = None) -> Any:
        """JSON both ways; PUT and POST say themselves again in the override header."""
        content = orjson.dumps(arguments or [])
        headers = {"Content-Type": JSON, "X-HTTP-Method-Override": verb}
        return self._read(await self.send(verb, path, content, headers))

    async def upload(self, path: str, media: bytes, mime: str) -> Any:
        """The media as the body."""
        headers = {"Content-Type": mime, "X-HTTP-Method-Override": "PUT"}
        return self._read(await self.send("PUT", path, media, headers))

    @staticmethod
    def _read(response: httpx.Response) -> Any:
        reply = response.json()
        assert not (isinstance(reply, dict) and "error" in reply), reply
        return reply


class Browser(Client):
    """A GUI or extension: ``JSON.parse`` of the text, ids compared with strict equality."""

    async def parsed(self, verb: str, path: str, body: Any = None) -> Any:
        """What ``JSON.parse`` makes of a reply that its library did not parse for it."""
        content = b"" if body is None else orjson.dumps(body)
        headers = {"Content-Type": "application/json; charset=UTF-8"} if content else {}
        response = await self.send(verb, path, content, {"Accept": "*/*", **headers})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/plain"), "jQuery would parse it"
        return orjson.loads(response.text)
