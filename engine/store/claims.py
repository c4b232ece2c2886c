"""Whose account answers for an address: asked in the transaction that would change it.

An account answers for its phone or e-mail address where it is active and a program takes what comes
in for it. Several may carry one number as their caller id, so carrying it claims nothing yet.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import orjson
from sqlalchemy import Subquery, bindparam, case, func, literal_column, select, union

from engine.errors import ConflictError
from engine.model import Account, Entity, Program, Service, Subscription
from engine.screening import bare_number, bare_spelling
from engine.store import queries, schema
from engine.store.statements import Statement
from engine.store.transaction import Transaction

T = TypeVar("T")

_SMS, _EMAIL = "receivesms", "receiveemail"
_spell = bare_spelling(Service.EMAIL)


class _Claim(NamedTuple):
    """``address`` as the account has it: another spelling of one address is another claim."""

    type: str
    owner_id: int | None
    address: str


def guarded(tx: Transaction, rows: Sequence[Entity], write: Callable[[], T]) -> T:
    """``write`` these rows, unless one user's account would then answer for another's address.

    ``ConflictError`` where an account comes to answer for what another owner's account answers for,
    or for the e-mail address of another user, in whatever spelling, with or without a ``+tag``.
    """
    touched = [account_id for row in rows for account_id in _touched(tx.connection, row)]
    if not touched:
        return write()
    before = set(_claims(tx.connection, touched))
    written = write()
    for claim in _claims(tx.connection, touched):
        if claim not in before and _taken(tx.connection, claim):
            raise ConflictError(
                f"exists already: what comes in for {claim.address} is another user's"
            )
    return written


def _touched(connection: sqlite3.Connection, row: Entity) -> Iterable[int]:
    """Accounts that may answer for another address once the row is written."""
    if isinstance(row, Subscription):
        return (row.account_id,)
    if isinstance(row, Program) and row.type in (_SMS, _EMAIL):
        subscribed = _SUBSCRIBED.run(connection, id=row.id).fetchall()
        return [account_id for [account_id] in subscribed] + _made_for(row)
    if isinstance(row, Account) and row.id:
        before = queries.get(connection, Account, row.id)
        if before is not None and _routed(before) != _routed(row):
            return (row.id,)
    return ()


def _made_for(program: Program) -> list[int]:
    account_id = program.data.get("account_id")
    return [account_id] if isinstance(account_id, int) else []


def _routed(account: Account) -> tuple[object, ...]:
    return account.active, account.owner_id, account.phone, account.email


def _claims(connection: sqlite3.Connection, account_ids: Sequence[int]) -> list[_Claim]:
    ids = orjson.dumps(account_ids).decode()
    return [_Claim(*row) for row in _OF_ACCOUNTS.run(connection, ids=ids)]


def _taken(connection: sqlite3.Connection, claim: _Claim) -> bool:
    base = _base(claim.type, claim.address)
    owner = {"owner_id": claim.owner_id}
    others = _OF_OTHERS.run_with(connection, {**owner, "type": claim.type}).fetchall()
    if claim.type == _EMAIL:
        others += _USERS.run_with(connection, owner).fetchall()
    return any(_base(claim.type, address) == base for [address] in others)


def _base(type_: str, address: str) -> str:
    """An address as routing may take it: without case, decoration, form of the domain and tag."""
    if type_ == _SMS:
        return bare_number(address)
    local, at, domain = _spell(address).rpartition("@")
    user, _, _ = local.partition("+")
    return f"{user or local}{at}{domain}"


# --- statements -------------------------------------------------------------------------------

_account, _program, _subscription = schema.account, schema.program, schema.subscription


def _serving() -> Subquery:
    """Which account is served by a program of which type."""
    routed = _program.c.type.in_([literal_column(f"'{name}'") for name in (_SMS, _EMAIL)])
    account_id = func.json_extract(_program.c.data, literal_column("'$.account_id'"))
    subscribed = (
        select(_subscription.c.account_id, _program.c.type)
        .join_from(_subscription, _program, _program.c.id == _subscription.c.program_id)
        .where(routed)
    )
    return union(subscribed, select(account_id, _program.c.type).where(routed)).subquery()


def _answers() -> Subquery:
    """What each account answers for; numbers are no matter of those of type eaddress."""
    serving = _serving()
    by_number = serving.c.type == literal_column(f"'{_SMS}'")
    no_number = _account.c.type == literal_column("'eaddress'")
    address = case((by_number, _account.c.phone), else_=_account.c.email)
    return (
        select(_account.c.id, serving.c.type, _account.c.owner_id, address.label("address"))
        .join_from(_account, serving, serving.c.account_id == _account.c.id)
        .where(_account.c.active, address != literal_column("''"), ~(by_number & no_number))
        .subquery()
    )


_all = _answers()
_given = func.json_each(bindparam("ids")).table_valued("value")
_OF_ACCOUNTS = Statement(
    select(_all.c.type, _all.c.owner_id, _all.c.address).where(
        _all.c.id.in_(select(_given.c.value))
    )
)
_OF_OTHERS = Statement(
    select(_all.c.address).where(
        _all.c.type == bindparam("type"),
        _all.c.owner_id.is_distinct_from(bindparam("owner_id")),
    )
)
_SUBSCRIBED = Statement(
    select(_subscription.c.account_id).where(_subscription.c.program_id == bindparam("id"))
)
_USERS = Statement(
    select(schema.usr.c.email).where(
        schema.usr.c.email != literal_column("''"),
        schema.usr.c.id.is_distinct_from(bindparam("owner_id")),
    )
)
