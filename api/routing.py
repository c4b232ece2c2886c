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
    from quart import Request, Response

    from api.body import StreamRequest
    from engine.app import Engine
    from engine.auth import Authenticator, Principal
    from engine.store.base import Query


# --- what a handler answers --------------------------------------------------------------------
class Created(msgspec.Struct, frozen=True):
    """A row was made, replaced or taken up: ``key`` is the name of its id.

    ``fresh`` is False where the row was there before (media of a recording): the classic mount
    spells its id as text then.
    """

    key: str
    id: int
    fresh: bool = True


class Item(msgspec.Struct, frozen=True):
    """One object (a msgspec struct or a map)."""

    view: Any


class Rows(msgspec.Struct, frozen=True):
    """A list of objects; ``more`` where the page was full, ``total`` of all pages if counted."""

    views: list[Any]
    more: bool = False
    total: int | None = None


class Status(msgspec.Struct, frozen=True):
    """The status of something."""

    status: str


class Value(msgspec.Struct, frozen=True):
    """A single value (an account's setting)."""

    value: Any


class Changed(msgspec.Struct, frozen=True):
    """An association was made or undone: ``view`` is the object as it is now.

    The guide's mount shows it; the classic one answers ``id`` where there is one, else ``true``.
    """

    view: Any
    id: int | None = None


class Done(msgspec.Struct, frozen=True):
    """It was done, and there is nothing to show (delete, start, stop).

    ``id`` is of what it was done to, where the classic mount repeats it (as text).
    """

    id: int | None = None


class File(msgspec.Struct, frozen=True):
    """A download. ``length`` is None where nobody knows it beforehand."""

    name: str
    content_type: str
    chunks: AsyncIterator[bytes]
    length: int | None = None


Reply = Created | Item | Rows | Status | Value | Changed | Done | File


# --- what a handler is given -------------------------------------------------------------------
class Ask(msgspec.Struct, frozen=True):
    """One authenticated request. ``parts`` are the parameters in its path.

    ``address`` is the peer's IP address.
    """

    engine: Engine
    authenticator: Authenticator
    who: Principal
    parts: Mapping[str, int | str]
    request: StreamRequest
    address: str = ""

    def id(self, name: str) -> int:
        """A number of the path; one that no row can have is a ``NotFoundError``."""
        value = self.parts[name]
        if not isinstance(value, int) or not 0 < value < 2**63:
            raise NotFoundError(f"{name.removesuffix('_id').capitalize()} not found")
        return value

    def text(self, name: str) -> str:
        """A word of the path."""
        return str(self.parts[name])

    def query(self, filters: Mapping[str, Filter]) -> Query:
        """The filters and page asked for."""
        return parse(self.request.args, filters)


Handler = Callable[[Ask], Awaitable[Reply]]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a dialect's table; the server and its OpenAPI document are made from it.

    ``path`` spells parameters ``{contact_id}``: a number where the name ends in ``_id``, else a
    word. ``body`` is a msgspec struct (JSON) or media
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

    def schema(self, route: Route, of: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """JSON Schema of what ``render`` answers for ``route``; ``of`` gives that of a view."""
        ...

    def components(self, views: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Named schemas that ``schema`` refers to beside ``views``, which ``of`` refers to."""
        ...


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """A vocabulary mounted below ``prefix``.

    ``readdress`` changes verb and path of a request before it is routed, where the dialect has
    other ways to spell them.
    """

    name: str
    prefix: str
    routes: tuple[Route, ...]
    translator: Translator
    meanings: Mapping[int, str]  # of every status it refuses with
    readdress: Callable[[Request], None] | None = None

    def owns(self, path: str) -> bool:
        """Whether ``path`` is one of this mount's, known or not."""
        return path == self.prefix or path.startswith(self.prefix + "/")

    media_types: tuple[str, ...] = ("application/json",)  # of its answers, files apart


def both(path: str, *routes: Route) -> tuple[Route, ...]:
    """``routes`` as they are, and once more with ``path`` taken off the front.

    Messages are at ``/messages/texts`` and at ``/texts``; every client uses one of the two.
    """
    bare = (msgspec.structs.replace(r, path=r.path.removeprefix(path)) for r in routes)
    return (*routes, *bare)
