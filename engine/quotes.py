"""What a text comes to: its parts, and their price at a provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from engine import gsm, segments
from engine.auth import Principal
from engine.catalog import Catalog
from engine.errors import NotFoundError
from engine.gateway import TextKind
from engine.model import Account, Contact, Provider, Service, Text, User
from engine.rules import account_of
from engine.segments import Concatenation, TextSize
from engine.store.base import Condition, Op, Query, Store
from engine.tokens import Context, compiled

PRICE_PLACES = 6
"""Digits of a price after the point: what binary fractions add beyond is no money."""


class Tariff(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider's settings say of parts and prices.

    ``price_per_part`` is in ``sms.currency``; ``through_latin1`` as in ``segments.kind_sent``.
    ``max_parts`` 0: as many as there are.
    """

    provider_id: int | None = None
    price_per_part: float = 0.0
    concatenation: Concatenation = Concatenation.UDH8
    through_latin1: bool = False
    max_parts: int = 0


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """One text at one tariff; ``price`` is that of all its parts."""

    text: str
    kind: TextKind
    size: TextSize
    tariff: Tariff
    price: float

    @property
    def texts(self) -> tuple[str, ...]:
        """The text of each part; of a binary one its digits."""
        return segments.texts(self.text, self.kind, self.tariff.concatenation)

    @property
    def unsupported(self) -> tuple[str, ...]:
        """The characters that cost the GSM alphabet, each once."""
        return () if self.kind is TextKind.BINARY else gsm.foreign(self.text)


class TextPreview(msgspec.Struct, frozen=True, kw_only=True):
    """``quote`` with the tokens replaced that could be; ``unresolved`` are the others.

    ``estimated``: another contact's may be of another size.
    """

    quote: Quote
    unresolved: tuple[str, ...]
    estimated: bool


def tariff_of(provider: Provider) -> Tariff:
    """What its settings say; they were checked when it was stored, but by whoever serves it."""
    price = provider.settings.get("price_per_part")
    ways = set(Concatenation)
    way = provider.settings.get("concatenation")
    return Tariff(
        provider_id=provider.id,
        price_per_part=float(price) if isinstance(price, int | float) else 0.0,
        concatenation=Concatenation(way) if way in ways else Concatenation.UDH8,
        through_latin1=_through_latin1(provider.settings),
        max_parts=_max_parts(provider),
    )


def _max_parts(provider: Provider) -> int:
    given = str(provider.settings.get("max_parts"))
    if given.isdecimal():
        return int(given)
    return segments.MAX_PARTS if provider.type == "smpp" else 0


def _through_latin1(settings: dict[str, Any]) -> bool:
    return settings.get("default_alphabet") == "latin1" and not settings.get("gsm_coding")


async def tariffs(store: Store) -> list[Tariff]:
    """Of the active providers that carry SMS; where there is none, one that is free."""
    return [tariff_of(one) for one in await carriers(store, Service.SMS)] or [Tariff()]


async def carriers(store: Store, service: Service) -> list[Provider]:
    """The active providers that carry a service."""
    active = Condition("active", Op.EQ, True)
    carrying = Condition("service", Op.HAS_BITS, service)
    return await store.find(Provider, Query(conditions=(active, carrying)))


def quote(words: str, text: Text, tariff: Tariff) -> Quote:
    """What ``words``, of ``text`` with its tokens replaced, come to.

    ``InvalidError`` where they shall be binary and are no hexadecimal digits.
    """
    kind = segments.kind_sent(
        words,
        segments.kind_of(text.type),
        flash=text.flash,
        through_latin1=tariff.through_latin1,
    )
    size = segments.measure(words, kind, tariff.concatenation)
    return Quote(
        text=words,
        kind=kind,
        size=size,
        tariff=tariff,
        price=round(size.parts * tariff.price_per_part, PRICE_PLACES),
    )


def too_long(words: str, text: Text, choice: Sequence[Tariff]) -> Quote | None:
    """At the one of ``choice`` that takes the fewest parts, where it does not take so many."""
    refused = [
        one
        for tariff in choice
        if tariff.max_parts and (one := quote(words, text, tariff)).size.parts > tariff.max_parts
    ]
    return min(refused, key=lambda one: one.tariff.max_parts, default=None)


def dearest(words: str, text: Text, choice: Sequence[Tariff]) -> Quote:
    """At the dearest of ``choice``: which provider carries it is known when it is sent."""
    return max(
        (quote(words, text, tariff) for tariff in choice),
        key=lambda one: (one.price, one.size.parts),
    )


async def preview_text(
    catalog: Catalog,
    who: Principal,
    text: Text,
    *,
    contact: Contact | None = None,
    provider: Provider | None = None,
) -> TextPreview:
    """What ``contact`` would get of ``text``; its tokens stay as they are without one.

    Rows are the caller's to see. Without a provider it is at the dearest tariff.
    """
    choice = await tariffs(catalog.store) if provider is None else [tariff_of(provider)]
    phrase = compiled(text.data)
    context = Context(
        contact=contact,
        account=await _default_account(catalog, who),
        user=await catalog.store.get(User, who.user_id),
        company=catalog.config.company,
        website=catalog.config.website,
    )
    return TextPreview(
        quote=dearest(phrase.fill(context), text, choice),
        unresolved=phrase.unresolved(context),
        estimated=phrase.varies,
    )


async def _default_account(catalog: Catalog, who: Principal) -> Account | None:
    try:
        return await catalog.store.get(Account, await account_of(catalog, who, None))
    except NotFoundError:  # a user without one
        return None
