"""The command line's way to a node: its own REST API, as any other client would use it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Any, Self

import httpx
import typer

from engine.errors import OutspoolError

DEFAULT_URL = "http://127.0.0.1:8080"
PAGE = 500
TIMEOUT_S = 30.0

Url = Annotated[str, typer.Option("--url", envvar="OUTSPOOL_URL", help="The node's address.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")]


class ClientError(OutspoolError):
    """The node could not be asked, or said no; the message is for the operator."""


class Client:
    """A node's REST API. Every refusal and every network fault is a ``ClientError``."""

    def __init__(self, url: str, username: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url,
            auth=(username, password),
            timeout=TIMEOUT_S,
            headers={"Accept": "application/json"},
            # A proxy of the environment is for the world outside, not for our own node.
            trust_env=False,
        )

    @classmethod
    def from_environment(cls, url: str) -> Self:
        """The client of ``OUTSPOOL_USER`` (default admin) and ``OUTSPOOL_PASSWORD``."""
        password = os.environ.get("OUTSPOOL_PASSWORD")
        if password is None:
            raise ClientError("set OUTSPOOL_PASSWORD (and OUTSPOOL_USER where it is not admin)")
        return cls(url, os.environ.get("OUTSPOOL_USER", "admin"), password)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Any:
        """What a GET answers."""
        given = {name: value for name, value in params.items() if value is not None}
        return self._ask("GET", path, params=given)

    def pages(self, path: str, limit: int, **params: Any) -> Iterator[dict[str, Any]]:
        """Up to ``limit`` rows of a list, fetched page by page."""
        offset = 0
        while offset < limit:
            size = min(PAGE, limit - offset)
            rows = self.get(path, limit=size, offset=offset, **params)
            yield from rows
            if len(rows) < size:
                return
            offset += size

    def post(self, path: str, body: Any = None) -> Any:
        """What a POST of JSON answers."""
        return self._ask("POST", path, json=body if body is not None else {})

    def put(self, path: str, body: Any = None) -> Any:
        """What a PUT of JSON answers."""
        return self._ask("PUT", path, json=body if body is not None else {})

    def upload(self, verb: str, path: str, content: bytes, content_type: str) -> Any:
        """What sending raw bytes (a recording, a CSV) answers."""
        return self._ask(verb, path, content=content, headers={"Content-Type": content_type})

    def _ask(self, verb: str, path: str, **request: Any) -> Any:
        try:
            reply = self._http.request(verb, path, **request)
        except httpx.InvalidURL as error:
            raise ClientError(f"{self.url}: {error}") from error
        except httpx.HTTPError as error:
            raise ClientError(f"cannot reach {self.url}: {error}") from error
        if reply.is_error:
            raise ClientError(f"{verb} {path}: {reply.status_code} {_reason(reply)}")
        return reply.json() if reply.content else None


def _reason(reply: httpx.Response) -> str:
    """The message inside ICTCore's error body, or the body's beginning."""
    try:
        body = reply.json()
        return str(body["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return reply.text[:200]
