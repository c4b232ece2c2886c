"""Passwords, tokens, roles, the first user."""

from __future__ import annotations

import json
import stat
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from engine.access import (
    GUEST,
    PERMISSIONS,
    ROLES,
    Access,
    Principal,
    ensure_access,
    principal_of,
)
from engine.auth import MAX_REVOKED, Authenticator
from engine.catalog import Catalog
from engine.clock import Clock, now
from engine.config import LoginConfig
from engine.enrolment import create_user, ensure_admin
from engine.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    ThrottledError,
    UnauthenticatedError,
    UnavailableError,
)
from engine.jwts import Tokens
from engine.model import Account, Contact, Permission, RevokedToken, Role, User
from engine.passwords import Passwords
from engine.people import People
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


async def authenticator_of(
    store: Store, folder: Path, clock: Clock = now, **login: Any
) -> Authenticator:
    config = config_in(folder, login=LoginConfig(**login))
    access = Access(store, clock)
    await access.open()
    people = People(Catalog(store, clock, config), access, Passwords())
    return await Authenticator.open(people, config)


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
        principal_of(User(username="x", roles=roles), ROLES)
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
    assert principal_of(User(username="x", roles=("wizard",)), ROLES).permissions == frozenset()
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
    assert (await tokens(tmp_path)).read(token).user_id == 7
    for late in (timedelta(seconds=61), timedelta(seconds=-30)):
        with pytest.raises(UnauthenticatedError):
            (await tokens(tmp_path, NOON + late)).read(token)


async def test_the_claims_are_those_clients_read(tmp_path: Path) -> None:
    token = (await tokens(tmp_path)).issue(ALICE)
    header, payload = (json.loads(urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
    assert header["alg"] == "RS256"
    assert header["kid"]
    assert len(payload.pop("jti")) >= 16
    assert payload == {
        "iss": "outspool", "iat": 1767268800, "nbf": 1767268800, "exp": 1767268860, "epoch": 0,
        "user_id": "7", "username": "alice", "is_admin": "0", "api-version": "1.0",
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
            ours.read(bad)


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


async def test_an_old_key_verifies_until_it_is_removed(tmp_path: Path) -> None:
    token = (await tokens(tmp_path)).issue(ALICE)
    path = tmp_path / "keys" / "jwt.pem"
    old = path.rename(path.with_name("jwt-2025.pem"))
    rotated = await tokens(tmp_path)
    assert rotated.read(token).user_id == 7
    fresh = rotated.issue(ALICE)
    old.unlink()
    alone = await tokens(tmp_path)
    assert alone.read(fresh).user_id == 7
    with pytest.raises(UnauthenticatedError):
        alone.read(token)


# --- access ------------------------------------------------------------------------------------
async def test_the_roles_and_permissions_are_made_once(store: Store) -> None:
    await ensure_access(store, now)
    roles = await store.find(Role, Query())
    assert [(role.id, role.name) for role in roles] == [(1, "user"), (2, "admin")]
    assert {role.name: frozenset(role.permissions) for role in roles} == ROLES
    permissions = await store.find(Permission, Query())
    assert [row.name for row in permissions] == list(PERMISSIONS)
    await ensure_access(store, now)
    assert await store.find(Role, Query()) == roles
    assert await store.find(Permission, Query()) == permissions


async def test_a_later_release_adds_only_what_is_new(store: Store) -> None:
    await ensure_access(store, now)
    user, _ = await store.find(Role, Query())
    await store.update(msgspec.structs.replace(user, permissions=("contact", "role_list")))
    (new,) = await store.find(Permission, Query(conditions=(Condition("name", Op.EQ, "group"),)))
    await store.delete(Permission, new.id)
    await ensure_access(store, now)
    user, _ = await store.find(Role, Query())
    assert user.permissions == ("contact", "group", "role_list")


def test_permissions_are_named_alike() -> None:
    families = {name for name in PERMISSIONS if "_" not in name}
    assert {name.partition("_")[0] for name in PERMISSIONS} == families
    assert len(set(PERMISSIONS)) == len(PERMISSIONS)
    assert all(names <= set(PERMISSIONS) for names in ROLES.values())


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
    authenticator = await authenticator_of(store, tmp_path)
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


# --- sessions ----------------------------------------------------------------------------------
async def logged_in(store: Store, authenticator: Authenticator, name: str = "u") -> str:
    await create_user(store, now, username=name, password=WORD, roles=("user",))
    return (await authenticator.login(name, WORD))[1]


async def test_a_token_given_back_is_none_also_after_a_restart(
    store: Store, tmp_path: Path
) -> None:
    authenticator = await authenticator_of(store, tmp_path)
    token = await logged_in(store, authenticator)
    other = (await authenticator.login("u", WORD))[1]
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(authenticator.revoke, token)
    await authenticator.revoke(token)
    await authenticator.revoke("no token")
    assert await store.count(RevokedToken, Query()) == 1
    for again in (authenticator, await authenticator_of(store, tmp_path)):
        with pytest.raises(UnauthenticatedError):
            await again.bearer(token)
        assert (await again.bearer(other)).username == "u"


async def test_revoked_tokens_are_forgotten_when_they_would_have_ended(
    store: Store, tmp_path: Path
) -> None:
    at = now()
    authenticator = await authenticator_of(store, tmp_path, lambda: at)
    await authenticator.revoke(await logged_in(store, authenticator))
    await authenticator.sweep()
    assert await store.count(RevokedToken, Query()) == 1
    at += timedelta(days=2)
    await authenticator.sweep()
    assert await store.count(RevokedToken, Query()) == 0
    assert authenticator.statistics()["revoked"] == 0


async def test_whoever_gives_back_very_many_tokens_gives_back_all(
    store: Store, tmp_path: Path
) -> None:
    authenticator = await authenticator_of(store, tmp_path)
    kept = await logged_in(store, authenticator)
    somebody_elses = await logged_in(store, authenticator, "v")
    for _ in range(MAX_REVOKED + 1):
        await authenticator.revoke((await authenticator.login("u", WORD))[1])
    assert await store.count(RevokedToken, Query()) == 0
    with pytest.raises(UnauthenticatedError):
        await authenticator.bearer(kept)
    assert (await authenticator.bearer(somebody_elses)).username == "v"
    assert await authenticator.bearer((await authenticator.login("u", WORD))[1])


# --- throttling --------------------------------------------------------------------------------
async def test_failures_are_throttled_where_they_come_from(store: Store, tmp_path: Path) -> None:
    authenticator = await authenticator_of(store, tmp_path, failures_per_account=3)
    await create_user(store, now, username="u", password=WORD, roles=("user",))
    for _ in range(3):
        with pytest.raises(UnauthenticatedError):
            await authenticator.login("u", "wrong", "10.0.0.1")
    with pytest.raises(ThrottledError) as caught:
        await authenticator.basic("u", WORD, "10.0.0.1")
    assert 0 < caught.value.retry_after_s <= 100
    assert (await authenticator.basic("u", WORD, "10.0.0.2")).username == "u"


async def test_right_passwords_are_never_counted(store: Store, tmp_path: Path) -> None:
    authenticator = await authenticator_of(store, tmp_path, failures_per_account=1)
    await create_user(store, now, username="u", password=WORD, roles=("user",))

    async def log_in() -> None:
        await authenticator.basic("u", WORD, "10.0.0.1")

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(log_in)
    assert authenticator.statistics()["throttle"]["pairs"] == 0


async def test_a_login_that_was_cut_off_is_no_failure(store: Store, tmp_path: Path) -> None:
    authenticator = await authenticator_of(store, tmp_path, failures_per_account=1)
    await create_user(store, now, username="u", password=WORD, roles=("user",))
    with trio.CancelScope() as scope:
        scope.cancel()
        await authenticator.login("u", "wrong", "10.0.0.1")
    assert authenticator.statistics()["throttle"]["pairs"] == 0


async def test_a_user_may_have_a_role_somebody_made(store: Store) -> None:
    await ensure_access(store, now)
    await store.insert(Role(name="desk", permissions=("contact_list",)))
    made = await create_user(store, now, username="u", password=WORD, roles=("desk",))
    access = Access(store, now)
    assert not access.principal(made).may("contact_list"), "nothing is granted before it is read"
    await access.open()
    assert access.principal(made).permissions == {"contact_list"}
