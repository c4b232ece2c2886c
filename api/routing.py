"""What every dialect is written in: a table of routes, what a handler is given and answers.

A handler turns an ``Ask`` into a ``Reply``, which says what happened and not how it looks. How it
looks is the ``Translator``'s: a second spelling of the same resources is one more translator.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from api.paging import Filter, parse
from engine.errors import NotFoundError

if TYPE_CHECKING:
    from quart import Response

    from api.body import StreamRequest
    from engine.app import Engine
    from engine.auth import Authenticator, Principal
    from engine.store.base import Query


# --- what a handler answers --------------------------------------------------------------------
class Created(msgspec.Struct, frozen=True):
    """A row was made, replaced or taken up: ``key`` is the name of its id."""

    key: str
    id: int


class Item(msgspec.Struct, frozen=True):
    """One object (a msgspec struct or a map)."""

    view: Any


class Rows(msgspec.Struct, frozen=True):
    """A list of objects; ``more`` where the page was full."""

    views: list[Any]
    more: bool = False


class Status(msgspec.Struct, frozen=True):
    """The status of something."""

    status: str


class Done(msgspec.Struct, frozen=True):
    """It was done, and there is nothing to show (delete, start, stop)."""


class File(msgspec.Struct, frozen=True):
    """A download. ``length`` is None where nobody knows it beforehand."""

    name: str
    content_type: str
    chunks: AsyncIterator[bytes]
    length: int | None = None


Reply = Created | Item | Rows | Status | Done | File


# --- what a handler is given -------------------------------------------------------------------
class Ask(msgspec.Struct, frozen=True):
    """One authenticated request. ``ids`` are the numbers in its path."""

    engine: Engine
    authenticator: Authenticator
    who: Principal
    ids: Mapping[str, int]
    request: StreamRequest

    def id(self, name: str) -> int:
        """A number of the path; one that no row can have is a ``NotFoundError``."""
        value = self.ids[name]
        if not 0 < value < 2**63:
            raise NotFoundError(f"{name.removesuffix('_id').capitalize()} not found")
        return value

    def query(self, filters: Mapping[str, Filter]) -> Query:
        """The filters and page asked for."""
        return parse(self.request.args, filters)


Handler = Callable[[Ask], Awaitable[Reply]]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a dialect's table; the server and its OpenAPI document are made from it.

    ``path`` spells parameters ``{contact_id}``. ``body`` is a msgspec struct (JSON) or media
    types; ``answer`` the reply's type, ``view`` the struct inside it (for ``Created`` the name of
    the id, for ``File`` its media type). ``statuses`` are refusals beyond those every route has.
    """

    verb: str
    path: str
    handler: Handler
    summary: str
    answer: type
    view: Any = None
    body: type | tuple[str, ...] | None = None
    filters: Mapping[str, Filter] | None = None
    statuses: tuple[int, ...] = ()
    public: bool = False


class Translator(Protocol):
    """How replies and refusals of one mount look on the wire."""

    def render(self, reply: Reply) -> Response:
        """The response to a request that was served."""
        ...

    def refuse(self, error: Exception) -> Response:
        """The response to one that was not; unknown exceptions are a plain 500."""
        ...


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """A vocabulary mounted below ``prefix``."""

    name: str
    prefix: str
    routes: tuple[Route, ...]
    translator: Translator
    meanings: Mapping[int, str]  # of every status it refuses with
