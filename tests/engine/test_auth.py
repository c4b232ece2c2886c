"""Passwords, tokens, roles, the first user."""

from __future__ import annotations

import json
import stat
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

from engine.auth import (
    GUEST,
    ROLES,
    Authenticator,
    Passwords,
    Principal,
    Tokens,
    create_user,
    ensure_admin,
    principal_of,
)
from engine.clock import now
from engine.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    UnauthenticatedError,
    UnavailableError,
)
from engine.model import Account, Contact, User
from engine.store import open_store
from engine.store.base import Condition, Op, Query, Store
from tests.support.engine import config_in

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WORD = "open sesame"
ALICE = User(id=7, username="alice", roles=("user",))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(config_in(tmp_path), clock=now) as opened:
        yield opened


async def tokens(folder: Path, at: datetime = NOON) -> Tokens:
    return await Tokens.open(folder / "keys" / "jwt.pem", lifetime_s=60, clock=lambda: at)


# --- permissions -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("granted", "asked", "may"),
    [
        ({"contact_create"}, "contact_create", True),
        ({"contact_create"}, "contact_read", False),
        ({"contact"}, "contact_create", True),
        ({"contact"}, "contact_admin", False),
        ({"contact_admin"}, "contact_admin", True),
        ({"contact_admin"}, "contact_read", False),
        ({"contact"}, "contacts_read", False),
        (set(), "contact_read", False),
    ],
)
def test_what_a_permission_grants(granted: set[str], asked: str, *, may: bool) -> None:
    who = Principal(user_id=1, username="x", permissions=frozenset(granted))
    assert who.may(asked) is may
    if may:
        who.require(asked)
    else:
        with pytest.raises(ForbiddenError):
            who.require(asked)


def test_roles_are_icts() -> None:
    user, admin, both = (
        principal_of(User(username="x", roles=roles))
        for roles in (("user",), ("admin",), ("user", "admin"))
    )
    for permission in ("contact_create", "campaign_start", "transmission_send", "account_list"):
        assert user.may(permission)
    for permission in ("provider_create", "user_create", "account_create", "contact_admin"):
        assert not user.may(permission)
    assert admin.may("provider_create")
    assert not admin.may("contact_read")
    for permission in ("provider_create", "contact_read", "contact_admin", "campaign_admin"):
        assert both.may(permission)
    assert principal_of(User(username="x", roles=("wizard",))).permissions == frozenset()
    assert not GUEST.may("api")


def test_whose_rows_are_seen() -> None:
    mine, other = Contact(owner_id=1), Contact(owner_id=2)
    nobodys = Contact()
    user = Principal(user_id=1, username="x", permissions=frozenset({"contact"}))
    keeper = Principal(user_id=1, username="x", permissions=frozenset({"contact_admin"}))
    assert [user.sees("contact", row) for row in (mine, other, nobodys)] == [True, False, False]
    assert [keeper.sees("contact", row) for row in (mine, other, nobodys)] == [True, True, True]


# --- passwords ---------------------------------------------------------------------------------
async def test_only_the_right_password_matches() -> None:
    passwords = Passwords()
    stored = await passwords.hash("secret")
    assert stored.startswith("$argon2id$")
    assert "secret" not in stored
    assert await passwords.verify(stored, "secret")
    assert not await passwords.verify(stored, "Secret")
    assert not await passwords.verify(stored, "")
    assert not await passwords.verify("", "")
    assert not await passwords.verify("not a hash", "secret")
    assert stored != await passwords.hash("secret"), "salted"


@pytest.mark.parametrize("password", ["", "x" * 1025])
async def test_a_password_has_a_sensible_length(password: str) -> None:
    with pytest.raises(InvalidError):
        await Passwords().hash(password)


async def test_too_many_logins_at_once_are_turned_away() -> None:
    passwords = Passwords(workers=1, max_waiting=2)
    refused = 0

    async def log_in() -> None:
        nonlocal refused
        try:
            await passwords.hash("x")
        except UnavailableError:
            refused += 1

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(log_in)
    assert refused == 3  # one at work, two in the queue
    assert passwords.statistics() == {"hashing": 0, "waiting": 0}


# --- tokens ------------------------------------------------------------------------------------
async def test_a_token_says_who_until_it_ends(tmp_path: Path) -> None:
    token = (await tokens(tmp_path)).issue(ALICE)
    assert (await tokens(tmp_path)).user_id(token) == 7
    for late in (timedelta(seconds=61), timedelta(seconds=-30)):
        with pytest.raises(UnauthenticatedError):
            (await tokens(tmp_path, NOON + late)).user_id(token)


async def test_the_claims_are_those_clients_read(tmp_path: Path) -> None:
    token = (await tokens(tmp_path)).issue(ALICE)
    header, payload = (json.loads(urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
    assert header["alg"] == "RS256"
    assert header["kid"]
    assert payload == {
        "iss": "outspool", "iat": 1767268800, "nbf": 1767268800, "exp": 1767268860,
        "user_id": "7", "username": "alice", "is_admin": "0",
    }  # fmt: skip


async def test_nothing_but_our_own_signature_counts(tmp_path: Path) -> None:
    ours, theirs = await tokens(tmp_path / "a"), await tokens(tmp_path / "b")
    token = ours.issue(ALICE)
    head, payload, signature = token.split(".")
    forged = theirs.issue(ALICE).split(".")[1]
    for bad in (
        theirs.issue(ALICE), "", "a", "a.b", f"{head}.{payload}.",
        f"{head}.{forged[:-2]}.{signature}", f"{head}.{payload}.{signature[:-4]}AAAA", "🙂.🙂.🙂",
    ):  # fmt: skip
        with pytest.raises(UnauthenticatedError):
            ours.user_id(bad)


async def test_the_key_is_made_once_and_kept_to_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "jwt.pem"
    await tokens(tmp_path)
    first = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    await tokens(tmp_path)
    assert path.read_bytes() == first
    path.chmod(0o644)
    with pytest.raises(InvalidError, match="0600"):
        await tokens(tmp_path)


# --- users -------------------------------------------------------------------------------------
async def test_the_first_start_makes_the_administrator_once(store: Store) -> None:
    password = await ensure_admin(store, None, now)
    assert password is not None
    assert len(password) >= 20
    (admin,) = await store.find(User, Query())
    assert (admin.username, set(admin.roles), admin.active) == ("admin", set(ROLES), True)
    (account,) = await store.find(Account, Query())
    assert (account.owner_id, account.username, account.active) == (admin.id, "admin", True)
    assert await Passwords().verify(admin.password_hash, password)
    assert await ensure_admin(store, "other", now) is None
    assert await store.find(User, Query()) == [admin], "a later start changes no password"


async def test_a_given_password_is_used_and_not_told(store: Store) -> None:
    assert await ensure_admin(store, "given", now) is None
    (admin,) = await store.find(User, Query())
    assert await Passwords().verify(admin.password_hash, "given")


async def test_a_first_start_that_was_cut_short_is_finished(store: Store) -> None:
    await store.insert(User(username="admin", roles=tuple(ROLES)))
    await ensure_admin(store, None, now)
    assert len(await store.find(Account, Query())) == 1


async def test_users_have_known_roles_and_a_name_of_their_own(store: Store) -> None:
    made = await create_user(store, now, username="u", password=WORD, roles=("user",))
    own = Query(conditions=(Condition("owner_id", Op.EQ, made.id),))
    assert len(await store.find(Account, own)) == 1
    with pytest.raises(ConflictError):
        await create_user(store, now, username="u", password=WORD, roles=("user",))
    for name, roles in (("", ("user",)), ("a\nb", ("user",)), ("v", ("king",))):
        with pytest.raises(InvalidError):
            await create_user(store, now, username=name, password=WORD, roles=roles)


async def test_a_password_that_changed_is_forgotten_at_once(store: Store, tmp_path: Path) -> None:
    authenticator = await Authenticator.open(store, config_in(tmp_path), now)
    user = await create_user(
        store, now, username="u", password=WORD, roles=("user",), email="u@example.com"
    )
    for name in ("u", "u@example.com", str(user.id)):
        assert (await authenticator.basic(name, WORD)).user_id == user.id
    assert authenticator.statistics()["remembered"] == 3
    fields = {name: getattr(user, name) for name in user.__struct_fields__}
    changed = User(**{**fields, "password_hash": await Passwords().hash("new")})
    await store.update(changed)
    with pytest.raises(UnauthenticatedError):
        await authenticator.basic("u", WORD)
    assert (await authenticator.basic("u", "new")).user_id == user.id
