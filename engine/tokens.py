"""Tokens in texts, templates and speech: ``[contact:first_name]`` becomes the contact's first name.

Pure. A token is ``[root:field(:field)*]`` of word characters (specs/ictcore.md §5.4); what it can
reach is the table here and nothing else, so no password, hash or setting can leave in a message.
Whatever is not in the table, or has no value in the context, stays as it was written. What a token
is replaced by is never read for tokens again.

For gateways: ``compiled(text, escape)`` once per campaign, ``Phrase.fill(context)`` per contact; or
``Phrase.fixed`` once and ``Phrase.values(context)`` per contact, where the rest can be prepared.
``Escape.HTML`` for HTML bodies, ``Escape.HEADER`` for subjects and names, ``Escape.NONE`` for SMS,
plain text and speech. The result of a phrase is at most as long as its text plus, for each token,
the longest value a field may have.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from engine.config import CompanyConfig, WebsiteConfig
from engine.model import Account, Contact, Direction, Document, Program, Transmission, User

# Possessive: a text that begins a million tokens and ends none is read once.
_TOKEN = re.compile(r"\[(\w++(?::\w++)++)\]", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class Escape(StrEnum):
    """What a phrase becomes a part of, and so what must not be in a value as it is."""

    NONE = "none"
    HTML = "html"  # & < > " '
    HEADER = "header"  # control characters and line ends, of the text too


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What tokens are resolved from; a noun that is None leaves its tokens as they are.

    ``results`` are data of the spool's result rows by name. ``unsubscribe`` is the contact's link;
    "" where the node has no address to make one of.
    """

    contact: Contact | None = None
    account: Account | None = None
    program: Program | None = None
    user: User | None = None
    document: Document | None = None
    transmission: Transmission | None = None
    spool_id: int | None = None
    results: Mapping[str, str] = {}
    unsubscribe: str | None = None
    company: CompanyConfig = CompanyConfig()
    website: WebsiteConfig = WebsiteConfig()


Reader = Callable[[Context], Any]
"""The value of one token; None where the context has none."""


class Phrase:
    """A text whose tokens have been found."""

    __slots__ = ("_clean", "_slots", "_tokens", "fixed")

    def __init__(self, text: str, escape: Escape) -> None:
        self._clean = _CLEAN[escape]
        # Texts stand at even places, tokens without their brackets at odd ones.
        pieces = _TOKEN.split(one_line(text) if escape is Escape.HEADER else text)
        self._tokens: list[tuple[str, Reader | None]] = []
        self._slots: list[tuple[str, Reader]] = []
        fixed = [[pieces[0]]]
        for place in range(1, len(pieces), 2):
            token, reader = f"[{pieces[place]}]", _reader(pieces[place])
            self._tokens.append((token, reader))
            if reader is None:
                fixed[-1] += token, pieces[place + 1]
            else:
                self._slots.append((token, reader))
                fixed.append([pieces[place + 1]])
        self.fixed: tuple[str, ...] = tuple(map("".join, fixed))
        """The texts round the values: one more than there are values."""

    @property
    def unknown(self) -> tuple[str, ...]:
        """The tokens that nothing can resolve, as written: to warn who wrote them."""
        return tuple(token for token, reader in self._tokens if reader is None)

    @property
    def varies(self) -> bool:
        """Whether anything in it can be resolved, so that its length differs by contact."""
        return bool(self._slots)

    def unresolved(self, context: Context) -> tuple[str, ...]:
        """The tokens that ``fill`` leaves as they are, as written."""
        return tuple(token for token, read in self._tokens if read is None or read(context) is None)

    def values(self, context: Context) -> tuple[str, ...]:
        """What stands between the ``fixed`` texts, clean: where there is no value, its token."""
        return tuple([self._value(token, read(context)) for token, read in self._slots])

    def _value(self, token: str, value: Any) -> str:
        return token if value is None else self._clean(str(value))

    def fill(self, context: Context) -> str:
        """The text with its tokens replaced."""
        if not self._slots:
            return self.fixed[0]
        pieces = [self.fixed[0]]
        for value, text in zip(self.values(context), self.fixed[1:], strict=True):
            pieces += value, text
        return "".join(pieces)


def compiled(text: str, escape: Escape = Escape.NONE) -> Phrase:
    """``text`` ready to be filled many times."""
    return Phrase(text, escape)


def render(text: str, context: Context, escape: Escape = Escape.NONE) -> str:
    """``text`` with its tokens replaced, once."""
    return compiled(text, escape).fill(context)


def one_line(value: str) -> str:
    """``value`` without what could end a header's line or hide in it; a blank stands for it."""
    return _CONTROL.sub(" ", value)


_CLEAN: dict[Escape, Callable[[str], str]] = {
    Escape.NONE: str,
    Escape.HTML: html.escape,
    Escape.HEADER: one_line,
}

# --- what a token can reach ----------------------------------------------------------------------

_PERSON = ("first_name", "last_name", "phone", "email", "address")
_CONTACT = (*_PERSON, "custom1", "custom2", "custom3", "description")


def _of(noun: str, *names: str, id_: str = "") -> dict[str, Reader]:
    """Readers of fields of the context's ``noun``; ``id_`` is how its id is called."""
    fields = {name: name for name in names} | ({id_: "id"} if id_ else {})
    return {token: _field(noun, field) for token, field in fields.items()}


def _field(noun: str, field: str) -> Reader:
    def read(context: Context) -> Any:
        row = getattr(context, noun)
        return None if row is None else getattr(row, field)

    return read


_CONTACT_READERS = _of("contact", *_CONTACT, id_="contact_id")
_ACCOUNT_READERS = _of("account", *_PERSON, id_="account_id")


def _turned(ours: Reader | None, theirs: Reader | None) -> Reader:
    """``ours`` of what we sent, ``theirs`` of what came in."""

    def read(context: Context) -> Any:
        sent = context.transmission
        inbound = sent is not None and sent.direction is Direction.INBOUND
        reader = theirs if inbound else ours
        return None if reader is None else reader(context)

    return read


def _either(ours: Mapping[str, Reader], theirs: Mapping[str, Reader]) -> dict[str, Reader]:
    return {
        name: _turned(ours.get(name), theirs.get(name)) for name in dict.fromkeys([*ours, *theirs])
    }


_ROOTS: dict[str, dict[str, Reader]] = {
    "contact": _CONTACT_READERS,
    "account": _ACCOUNT_READERS,
    "transmission:contact": _CONTACT_READERS,
    "transmission:account": _ACCOUNT_READERS,
    "transmission:source": _either(_ACCOUNT_READERS, _CONTACT_READERS),
    "transmission:destination": _either(_CONTACT_READERS, _ACCOUNT_READERS),
    "transmission": _of("transmission", "title", id_="transmission_id"),
    "transmission:spool": {"spool_id": lambda context: context.spool_id},
    "company": _of("company", "name", "email", "phone", "address"),
    "website": _of("website", "url", "title"),
    "user": _of("user", *_PERSON, "company", id_="user_id"),
    "program": _of("program", "name", "type", id_="program_id"),
    "document": _of("document", "name", "description", "pages", "quality", id_="document_id"),
    "unsubscribe": {"url": lambda context: context.unsubscribe},
}

_READERS: dict[str, Reader] = {
    f"{root}:{field}": reader for root, fields in _ROOTS.items() for field, reader in fields.items()
}

KNOWN: tuple[str, ...] = tuple(_READERS)
"""Every token without its brackets, but for ``transmission:result:<name>:data``."""

_RESULT = re.compile(r"transmission:result:(\w+):data", re.ASCII)


def _reader(token: str) -> Reader | None:
    result = _RESULT.fullmatch(token)
    if result is None:
        return _READERS.get(token)
    name = result[1]
    return lambda context: context.results.get(name)
