"""What hangs on an account: programs that serve it, its owner, settings and credentials."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from engine.auth import Principal
from engine.catalog import Catalog, guarded
from engine.errors import ConflictError, InvalidError, NotFoundError, NotReadyError
from engine.model import Account, Campaign, Direction, Program, Subscription, User
from engine.programs import PROGRAMS
from engine.store.base import Condition, Op, Query

INBOUND = tuple(
    sorted(name for name, kind in PROGRAMS.items() if kind.direction is Direction.INBOUND)
)
"""Types of programs that are made for one account: their data's ``account_id``."""

_NAME_LENGTH = 64
_SETTING = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)


class Accounts:
    """The accounts of one node, beyond what every noun can do.

    A program serves an account because the account is subscribed to it, or because it was made for
    the account (``INBOUND``).
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._store = catalog.store
        catalog.after_delete(Account, self._bereave)

    # --- programs ------------------------------------------------------------------------------
    async def programs(self, who: Principal, account_id: int, query: Query) -> list[Program]:
        """The programs that serve an account and are the caller's to see."""
        who.require("account_read", "program_list")
        account = await self._catalog.visible(who, Account, account_id)
        ids = {row.program_id for row in await self._subscriptions(account)}
        ids |= {program.id for program in await self._made_for(account)}
        of_account = Condition("id", Op.IN, tuple(sorted(ids)))
        query = msgspec.structs.replace(query, conditions=(*query.conditions, of_account))
        return await self._store.find(Program, self._catalog.scoped(who, Program, query))

    async def subscribe(self, who: Principal, account_id: int, program_id: int) -> Account:
        """Let a program serve an account; nothing changes where it does already."""
        who.require("account_update", "program_create", "program_execute")
        account = await self._catalog.visible(who, Account, account_id)
        program = await self._catalog.visible(who, Program, program_id)
        at = self._catalog.clock()
        row = Subscription(
            account_id=account.id,
            program_id=program.id,
            owner_id=account.owner_id,
            created_at=at,
            updated_at=at,
        )
        async with self._catalog.edits[Subscription]:
            if not any(s.program_id == program.id for s in await self._subscriptions(account)):
                await self._store.insert(row, guarded=guarded(who))
        return account

    async def equip(self, who: Principal, account_id: int, type_: str) -> tuple[Account, int]:
        """Make a program of an inbound type for an account, or find it; answers its id too."""
        who.require("account_update", "program_create", "program_execute")
        account = await self._catalog.visible(who, Account, account_id)
        if type_ not in INBOUND:
            raise InvalidError(f"type: one of {', '.join(INBOUND)}", field="type")
        for program in await self._made_for(account, (type_,)):
            return account, program.id
        name = f"{type_} for {account.username or account.id}"[:_NAME_LENGTH]
        wanted = Program(name=name, type=type_, data={"account_id": account.id})
        return account, (await self._catalog.create(who, wanted)).id

    async def unsubscribe(self, who: Principal, account_id: int, program_id: int) -> Account:
        """Let a program serve an account no more; ``NotFoundError`` where it does not."""
        who.require("account_update", "program_delete")
        account = await self._catalog.visible(who, Account, account_id)
        if not await self._release(account, lambda program: program.id == program_id):
            raise NotFoundError("Account is not subscribed to this program")
        return account

    async def unequip(self, who: Principal, account_id: int, type_: str) -> Account:
        """Let no program of a type serve an account; ``NotFoundError`` where none does."""
        who.require("account_update", "program_delete")
        account = await self._catalog.visible(who, Account, account_id)
        if not await self._release(account, lambda program: program.type == type_):
            raise NotFoundError("Account has no program of this type")
        return account

    async def clear(self, who: Principal, account_id: int) -> Account:
        """Let no program serve an account."""
        who.require("account_update", "program_delete")
        account = await self._catalog.visible(who, Account, account_id)
        await self._release(account, lambda _: True)
        return account

    # --- owner ---------------------------------------------------------------------------------
    async def give(self, who: Principal, account_id: int, user_id: int) -> Account:
        """Make an account somebody else's.

        Programs of the one before serve it no more. ``ConflictError`` while a campaign dials with
        it; ``NotFoundError`` for the user, ``InvalidError`` where the user is not active.
        """
        who.require("account_create", "user_update")
        user = await self._store.get(User, user_id)
        if user is None or not (user.id == who.user_id or who.sees("user", user)):
            raise NotFoundError("User not found")
        if not user.active:
            raise InvalidError("user_id: the user is not active", field="user_id")
        return await self._hand_over(who, account_id, user.id)

    async def free(self, who: Principal, account_id: int) -> Account:
        """Make an account nobody's: then only ``account_admin`` sees it."""
        who.require("account_delete", "user_update")
        return await self._hand_over(who, account_id, None)

    # --- settings and credentials --------------------------------------------------------------
    async def setting(self, who: Principal, account_id: int, name: str) -> Any:
        """The value of a setting."""
        account = await self._catalog.read(who, Account, account_id)
        if name not in account.settings:
            raise NotFoundError("Setting not found")
        return account.settings[name]

    async def set_setting(self, who: Principal, account_id: int, name: str, value: Any) -> Account:
        """Set or make a setting; the others stay."""
        if not _SETTING.fullmatch(name):
            raise InvalidError("name: 1 to 64 of letters, digits and _ . : -", field="name")
        return await self._catalog.update(who, Account, account_id, {"settings": {name: value}})

    async def drop_setting(self, who: Principal, account_id: int, name: str) -> Account:
        """Remove a setting."""
        who.require("account_update")
        async with self._catalog.edits[Account]:
            account = await self._catalog.visible(who, Account, account_id)
            if name not in account.settings:
                raise NotFoundError("Setting not found")
            kept = {key: value for key, value in account.settings.items() if key != name}
            return await self._stored(who, account, settings=kept)

    async def password(self, who: Principal, account: Account) -> str | None:
        """What a phone registers with; only for who could set it anyway, else None."""
        if not who.may("account_update"):
            return None
        return (await self._catalog.secrets.opened(account)).passwd

    # --- inside --------------------------------------------------------------------------------
    async def _hand_over(self, who: Principal, account_id: int, owner_id: int | None) -> Account:
        async with self._catalog.edits[Account]:
            account = await self._catalog.visible(who, Account, account_id)
            if account.owner_id == owner_id:
                return account
            for campaign in await self._store.find(Campaign, _of("account_id", account.id)):
                if campaign.owner_id != owner_id:
                    raise ConflictError(f"Account is used by campaign {campaign.id}")
            await self._release(account, lambda _: True)
            return await self._stored(who, account, owner_id=owner_id)

    async def _stored(self, who: Principal, account: Account, **changes: Any) -> Account:
        changed = msgspec.structs.replace(account, **changes, updated_at=self._catalog.clock())
        return await self._store.update(changed, guarded=guarded(who))

    async def _subscriptions(self, account: Account) -> list[Subscription]:
        return await self._store.find(Subscription, _of("account_id", account.id))

    async def _made_for(self, account: Account, types: Collection[str] = INBOUND) -> list[Program]:
        query = Query(conditions=(Condition("type", Op.IN, tuple(types)),))
        programs = await self._store.find(Program, query)
        return [program for program in programs if program.data.get("account_id") == account.id]

    async def _release(self, account: Account, which: Callable[[Program], bool]) -> int:
        """Let programs serve an account no more; answers how many did."""
        released = 0
        rows = await self._subscriptions(account)
        programs = await self._catalog.by_id(Program, {row.program_id for row in rows})
        for row in rows:
            if row.program_id in programs and which(programs[row.program_id]):
                released += await self._store.delete(Subscription, row.id)
        for program in await self._made_for(account):
            if which(program):
                await self._end(program)
                released += 1
        return released

    async def _end(self, program: Program) -> None:
        """Delete a program made for an account; one with a history stays, made for nobody."""
        async with self._catalog.edits[Program]:
            try:
                await self._catalog.remove(program)
            except (ConflictError, NotReadyError):
                data = {key: value for key, value in program.data.items() if key != "account_id"}
                at = self._catalog.clock()
                await self._store.update(msgspec.structs.replace(program, data=data, updated_at=at))

    async def _bereave(self, account: Account) -> None:
        """Its subscriptions went with the row; what was made for it goes too."""
        for program in await self._made_for(account):
            await self._end(program)


def _of(field: str, value: int) -> Query:
    return Query(conditions=(Condition(field, Op.EQ, value),))
