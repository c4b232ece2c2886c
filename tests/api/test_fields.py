"""Bodies in, objects out: the spellings of ICTCore, without a server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from api.ictcore import accounts, campaigns, contacts, groups, providers
from api.ictcore.accounts import AccountBody
from api.ictcore.campaigns import CampaignBody
from api.ictcore.contacts import ContactBody
from api.ictcore.fields import changes, decode, parse
from api.ictcore.groups import GroupBody
from api.ictcore.providers import ProviderBody
from api.ictcore.translate import Guide
from api.paging import boolean, integer
from api.routing import Created, Done, Item, Rows, Status
from engine.errors import InvalidError
from engine.model import Account, Campaign, Contact, Group, Provider, Service

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
TIMES = st.integers(0, 4_000_000_000).map(lambda second: datetime.fromtimestamp(second, UTC))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)  # fmt: skip


def shown(view: msgspec.Struct) -> dict[str, Any]:
    """An object as a client reads it and, being a GUI, sends it back."""
    value: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(view))
    return value


@given(st.builds(Contact, first_name=WORDS, phone=WORDS, custom3=WORDS, created_at=TIMES))
def test_a_contact_survives_the_trip(contact: Contact) -> None:
    body = decode(shown(contacts.to_json(contact)), ContactBody, creating=False)
    assert msgspec.structs.replace(contact, **changes(body)) == contact


@given(st.builds(Group, name=WORDS, description=WORDS, contact_total=st.integers(0, 9)))
def test_a_group_survives_the_trip(group: Group) -> None:
    body = decode(shown(groups.to_json(group)), GroupBody, creating=False)
    assert msgspec.structs.replace(group, **changes(body)) == group


@given(
    st.builds(
        Campaign,
        program_id=st.integers(1, 2**53),
        group_id=st.integers(1, 2**53),
        account_id=st.none() | st.integers(1, 9),
        calls_per_minute=st.floats(0.01, 1e6),
        try_allowed=st.integers(1, 9),
    )
)
def test_a_campaign_survives_the_trip(campaign: Campaign) -> None:
    body = decode(shown(campaigns.to_json(campaign, None)), CampaignBody, creating=False)
    given_back = changes(body, {"cpm": "calls_per_minute"})
    assert msgspec.structs.replace(campaign, **given_back) == campaign


@given(
    st.builds(
        Provider,
        name=WORDS,
        service=st.sampled_from([Service.VOICE, Service.VOICE | Service.FAX, Service.SMS]),
        port=st.integers(1, 65_535),
        prefix=WORDS,
        settings=st.dictionaries(st.sampled_from(["codec", "x"]), st.integers(0, 9)),
        register=st.booleans(),
        active=st.booleans(),
        calls_per_second=st.floats(0, 1000),
        channels=st.integers(0, 100),
    )
)
def test_a_provider_survives_the_trip(provider: Provider) -> None:
    body = decode(shown(providers.to_json(provider)), ProviderBody, creating=False)
    after = msgspec.structs.replace(provider, **providers.from_json(body))
    # "" says "as it is" for settings, so an empty map is not written back.
    assert after == provider


@given(st.builds(Account, username=WORDS, active=st.booleans(), passwd=WORDS))
def test_an_account_survives_the_trip(account: Account) -> None:
    body = decode(shown(accounts.to_json(account)), AccountBody, creating=False)
    assert msgspec.structs.replace(account, **changes(body)) == account
    assert account.passwd not in shown(accounts.to_json(account)).values() or account.passwd in (
        account.username, account.type,
    )  # fmt: skip


@given(
    st.dictionaries(st.sampled_from([*ProviderBody.__struct_fields__, "other"]), JSON),
    st.booleans(),
)
def test_any_json_is_taken_or_refused_by_name(data: dict[str, Any], creating: bool) -> None:  # noqa: FBT001
    refusal = None
    try:
        body = decode(data, ProviderBody, creating=creating)
    except InvalidError as error:
        refusal = error
    if refusal is not None:
        assert refusal.field in data
        assert refusal.field in str(refusal)
        return
    for name in ("name", "prefix", "host"):
        assert isinstance(getattr(body, name), str | type(UNSET))
    assert isinstance(body.port, int | type(UNSET))


@given(st.binary(max_size=50))
def test_any_bytes_are_a_map(raw: bytes) -> None:
    for content_type in ("application/json", "application/x-www-form-urlencoded", ""):
        assert isinstance(parse(raw, content_type), dict)


@pytest.mark.parametrize(
    ("value", "creating", "expected"),
    [("", True, UNSET), (None, True, UNSET), ("", False, ""), (None, False, ""), (7, True, "7")],
)
def test_empty_means_not_given_on_create(value: Any, expected: Any, *, creating: bool) -> None:
    assert decode({"first_name": value}, ContactBody, creating=creating).first_name == expected


@pytest.mark.parametrize("value", ["", None])
@pytest.mark.parametrize("creating", [True, False])
def test_an_empty_number_is_never_given(value: Any, *, creating: bool) -> None:
    assert decode({"try_allowed": value}, CampaignBody, creating=creating).try_allowed is UNSET


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, True), (0, False), ("1", True), ("0", False), (True, True), ("yes", True), ("No", False)],
)
def test_flags(value: Any, *, expected: bool) -> None:
    assert decode({"active": value}, AccountBody, creating=True).active is expected
    assert boolean(str(value)) is expected


@given(st.text(max_size=25))
def test_a_number_in_a_filter_is_a_number(text: str) -> None:
    try:
        value = integer(text)
    except ValueError:
        return
    assert int(text) == value
    assert abs(value) < 2**63


def test_the_guide_spells_replies_so() -> None:
    spell = Guide().spell
    assert spell(Created("contact_id", 1)) == {"contact_id": 1}
    assert spell(Status("completed")) == {"status": "completed"}
    assert spell(Done()) is True
    assert spell(Rows([{"a": 1}])) == [{"a": 1}]
    assert spell(Item({"a": None})) == {"a": None}
