"""Tokens: what they reach, what they never reach, and that values inject nothing."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import CompanyConfig, WebsiteConfig
from engine.model import Account, Contact, Direction, Document, Program, Transmission, User
from engine.tokens import KNOWN, Context, Escape, compiled, render

CONTACT = Contact(
    id=7, first_name="Ada", last_name="Lovelace", phone="+4930123456", email="ada@example.com",
    address="London", custom1="gold", custom2="two", custom3="three", description="a friend",
)  # fmt: skip
ACCOUNT = Account(
    id=8, username="ext100", passwd="S3CRET-1", passwd_pin="S3CRET-2",  # noqa: S106 - a bait
    first_name="Sales", last_name="Desk", phone="030999", email="sales@example.com",
    address="Berlin", settings={"key": "S3CRET-3"},
)  # fmt: skip
USER = User(
    id=9, username="charles", password_hash="S3CRET-4",  # noqa: S106 - a bait
    first_name="Charles", company="Engines",
    permissions=("S3CRET-5",), roles=("S3CRET-6",),
)  # fmt: skip
FULL = Context(
    contact=CONTACT,
    account=ACCOUNT,
    user=USER,
    program=Program(id=10, name="January", type="sendsms", data={"text": "S3CRET-7"}),
    document=Document(id=11, name="Invoice", description="of May", pages=3, media_path="S3CRET-8"),
    transmission=Transmission(
        id=12, title="Sale", program_id=10, contact_id=7, response="S3CRET-9", origin="S3CRET-9"
    ),
    spool_id=13,
    results={"amd": "human"},
    company=CompanyConfig(name="ACME", email="a@acme.example", phone="1", address="Road"),
    website=WebsiteConfig(url="https://acme.example", title="Acme"),
    unsubscribe="https://acme.example/u?a=1&b=2",
)
TEXTS = st.text(
    st.sampled_from("[]:contactfirstname_phonexy &<>\"'\r\n\x00\x85\u2028é"), max_size=80
)


@pytest.mark.parametrize(
    ("token", "value"),
    [
        ("contact:first_name", "Ada"),
        ("contact:custom3", "three"),
        ("account:phone", "030999"),
        ("transmission:contact:last_name", "Lovelace"),
        ("transmission:account:email", "sales@example.com"),
        ("transmission:source:first_name", "Sales"),
        ("transmission:destination:first_name", "Ada"),
        ("transmission:destination:custom1", "gold"),
        ("transmission:title", "Sale"),
        ("transmission:transmission_id", "12"),
        ("transmission:spool:spool_id", "13"),
        ("transmission:result:amd:data", "human"),
        ("company:name", "ACME"),
        ("company:address", "Road"),
        ("website:url", "https://acme.example"),
        ("website:title", "Acme"),
        ("user:company", "Engines"),
        ("program:name", "January"),
        ("document:pages", "3"),
        ("contact:contact_id", "7"),
        ("unsubscribe:url", "https://acme.example/u?a=1&b=2"),
    ],
)
def test_a_token_is_replaced(token: str, value: str) -> None:
    assert render(f"<[{token}]>", FULL) == f"<{value}>"


@pytest.mark.parametrize(
    "text",
    [
        "[contact]", "[contact:]", "[:first_name]", "[contact:first-name]", "[contact: phone]",
        "[Contact:phone]", "[contact:nothing]", "[contact:first_name", "contact:first_name]",
        "[transmission:source:custom1]", "[transmission:result:key:data]", "[transmission:result]",
        "[request:host]", "[contact:first_name:x]", "[contact:__class__]", "[cöntact:phone]", "",
    ],
)  # fmt: skip
def test_what_is_no_token_or_has_no_value_stays(text: str) -> None:
    assert render(text, FULL) == text


def test_a_noun_that_is_not_there_leaves_its_tokens() -> None:
    text = "[account:phone] [transmission:title] [transmission:spool:spool_id]"
    assert render(text, Context(contact=CONTACT)) == text


def test_an_empty_value_is_a_value() -> None:
    assert render("<[contact:first_name]>", Context(contact=Contact(phone="1"))) == "<>"


def test_source_and_destination_change_places_for_what_came_in() -> None:
    inbound = Transmission(program_id=1, contact_id=7, direction=Direction.INBOUND)
    context = Context(contact=CONTACT, account=ACCOUNT, transmission=inbound)
    text = "[transmission:source:phone]>[transmission:destination:phone]"
    assert render(text, context) == "+4930123456>030999"
    assert render("[transmission:source:custom1]", context) == "gold"


def test_the_unknown_tokens_of_a_text_are_told() -> None:
    phrase = compiled("[contact:phone] [contact:fax] [request:ip] [no token]")
    assert phrase.unknown == ("[contact:fax]", "[request:ip]")


def test_what_a_text_leaves_as_it_is_is_told() -> None:
    phrase = compiled("[contact:phone] [contact:fax] [transmission:title]")
    assert phrase.varies
    assert phrase.unresolved(Context(contact=CONTACT)) == ("[contact:fax]", "[transmission:title]")
    assert phrase.unresolved(FULL) == ("[contact:fax]",)
    assert not compiled("[contact:fax] [no token]").varies


@pytest.mark.parametrize("token", KNOWN)
def test_no_token_is_a_way_to_a_secret(token: str) -> None:
    assert "S3CRET" not in render(f"[{token}]", FULL)
    assert not re.search(r"pass|pin\b|hash|setting|token|role|permission|path|data$", token)


@pytest.mark.parametrize("noun", ["contact", "account", "user", "program", "document", "company"])
def test_every_other_field_stays_as_written(noun: str) -> None:
    row: Any = getattr(FULL, noun)
    for field in row.__struct_fields__:
        token = f"{noun}:{field}"
        if token not in KNOWN:
            assert render(f"[{token}]", FULL) == f"[{token}]"
            assert render(f"[transmission:{token}]", FULL) == f"[transmission:{token}]"


@given(TEXTS, TEXTS)
def test_a_value_is_never_read_for_tokens(text: str, value: str) -> None:
    inner = Context(contact=Contact(first_name=value + "[contact:phone]", phone="LEAK"))
    assert "LEAK" not in render(f"{text.replace('[', '(')}[contact:first_name]", inner)


@given(TEXTS)
def test_a_text_without_known_tokens_comes_out_as_it_went_in(text: str) -> None:
    assert render(text, Context()) == text


@given(TEXTS, TEXTS)
def test_html_lets_no_value_open_a_tag_or_leave_an_attribute(text: str, value: str) -> None:
    before = text.replace("[", "(")
    context = Context(contact=Contact(first_name=value))
    shown = render(f"{before}[contact:first_name]", context, Escape.HTML)
    assert shown.startswith(before), "the text itself is HTML already"
    inserted = shown.removeprefix(before)
    assert not set("<>\"'") & set(inserted)
    assert html.unescape(inserted) == value


@given(TEXTS, TEXTS)
def test_a_header_stays_one_line(text: str, value: str) -> None:
    context = Context(contact=Contact(first_name=value))
    shown = render(f"{text}[contact:first_name]", context, Escape.HEADER)
    assert len(f".{shown}.".splitlines()) == 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", shown)


@given(st.lists(st.sampled_from(["[contact:first_name]", "[contact:none]", "a", "[", "]", "é"])))
def test_a_compiled_phrase_says_the_same_to_everybody_in_turn(parts: list[str]) -> None:
    phrase = compiled("".join(parts))
    for name in ("Ada", "", "[contact:first_name]"):
        context = Context(contact=Contact(first_name=name))
        expected = "".join(name if part == "[contact:first_name]" else part for part in parts)
        assert phrase.fill(context) == expected


def test_a_hostile_text_is_read_in_one_go() -> None:
    # Backtracking over this would take hours.
    text = "[" + "a:" * 200_000 + "[a:a" * 200_000
    assert render(text, FULL) == text


PHRASES = st.lists(
    st.sampled_from(
        ["[contact:first_name]", "[contact:none]", "[account:phone]", "[unsubscribe:url]", "[", "]",
         "a", "<b>", "\r\n", "[a:b", "é"]
    )
)  # fmt: skip


@given(PHRASES, TEXTS, st.sampled_from(Escape), st.sampled_from([None, "", "https://a/?b&c"]))
def test_fixed_texts_and_values_make_what_is_filled_in(
    parts: list[str], value: str, escape: Escape, link: str | None
) -> None:
    phrase = compiled("".join(parts), escape)
    context = Context(contact=Contact(first_name=value), unsubscribe=link)
    values = phrase.values(context)
    assert len(phrase.fixed) == len(values) + 1
    pairs = zip(phrase.fixed, (*values, ""), strict=True)
    assert "".join(text + value for text, value in pairs) == phrase.fill(context)


def test_what_nothing_resolves_is_fixed_and_what_has_no_value_is_its_token() -> None:
    phrase = compiled("<[contact:fax]> [account:phone] [contact:phone]", Escape.HTML)
    assert phrase.fixed == ("<[contact:fax]> ", " ", "")
    assert phrase.values(Context(contact=CONTACT)) == ("[account:phone]", "+4930123456")


def test_no_link_is_an_empty_one_and_not_a_token() -> None:
    assert render("<[unsubscribe:url]>", Context(unsubscribe="")) == "<>"
    assert render("<[unsubscribe:url]>", Context()) == "<[unsubscribe:url]>"
