"""What comes in for one user's address cannot be led to another user's account."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from engine.clock import now
from engine.gateway import InboundText, Reception, TextKind
from engine.model import Account, Provider, Service, User
from engine.store.base import Query
from tests.api.node import Node, made, running_node
from tests.support.mails import inbound

SUPPORT, NUMBER = "support@münchen.example", "+4930999"
Claim = Callable[["Scene", str], Awaitable[httpx.Response]]


class Scene(msgspec.Struct, frozen=True):
    """Two plain users, and the account each was born with; Mallory's is the older one."""

    node: Node
    mallory: httpx.AsyncClient
    alice: httpx.AsyncClient
    mallorys: int
    alices: int

    async def serve(self, client: httpx.AsyncClient, account: int, **fields: str) -> list[int]:
        """The statuses of giving an account addresses, and programs for what comes in."""
        answers = [await client.put(f"/accounts/{account}", json=fields)]
        for field in fields:
            path = f"/accounts/{account}/programs/{TYPES[field]}"
            answers.append(await client.put(path))
        return [answer.status_code for answer in answers]

    async def change(self, **fields: str) -> httpx.Response:
        return await self.mallory.put(f"/accounts/{self.mallorys}", json=fields)

    async def mails(self, destination: str) -> dict[str, int]:
        """How many mails each of them has, after one more to this address."""
        mail = inbound(destination=destination, key=destination)
        assert await self.node.engine.inbox.receive_mail(mail) is Reception.TAKEN
        return await self.has("/emails")

    async def has(self, path: str) -> dict[str, int]:
        both = {"alice": self.alice, "mallory": self.mallory}
        return {name: len((await client.get(path)).json()) for name, client in both.items()}


TYPES = {"email": "receiveemail", "phone": "receivesms"}


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with running_node(tmp_path) as node:
        clients = {name: await node.user(name, "user") for name in ("mallory", "alice")}
        accounts = await node.engine.store.find(Account, Query())
        ids = {account.username: account.id for account in accounts}
        yield Scene(node, **clients, mallorys=ids["mallory"], alices=ids["alice"])


async def text(scene: Scene, destination: str, words: str = "Hi") -> Reception:
    store = scene.node.engine.store
    provider = await store.insert(Provider(name="smsc", type="loopback", service=Service.SMS))
    message = InboundText(
        provider=provider, source="4917012345", destination=destination, text=words,
        kind=TextKind.UNICODE, at=now(), key=words,
    )  # fmt: skip
    return await scene.node.engine.inbox.receive(message)


# --- the ways to claim ----------------------------------------------------------------------------
async def by_address(scene: Scene, address: str) -> httpx.Response:
    assert await scene.serve(scene.mallory, scene.mallorys, email="m@other.example") == [200, 200]
    return await scene.change(email=address)


async def by_equipping(scene: Scene, address: str) -> httpx.Response:
    assert (await scene.change(email=address)).status_code == 200
    return await scene.mallory.put(f"/accounts/{scene.mallorys}/programs/receiveemail")


async def by_making(scene: Scene, address: str) -> httpx.Response:
    assert (await scene.change(email=address)).status_code == 200
    body = {"name": "in", "account_id": scene.mallorys}
    return await scene.mallory.post("/programs/receiveemail", json=body)


async def second(scene: Scene, **fields: Any) -> int:
    """Another account of Mallory, with a program for mails."""
    [owner] = [u.id for u in await scene.node.engine.store.find(User, Query())
               if u.username == "mallory"]  # fmt: skip
    account = await scene.node.engine.store.insert(Account(owner_id=owner, active=True, **fields))
    body = {"name": "in", "account_id": account.id}
    return await made(scene.mallory, "/programs/receiveemail", **body)


async def by_subscribing(scene: Scene, address: str) -> httpx.Response:
    program = await second(scene)
    assert (await scene.change(email=address)).status_code == 200
    return await scene.mallory.put(f"/accounts/{scene.mallorys}/programs/{program}")


async def by_moving_a_program(scene: Scene, address: str) -> httpx.Response:
    program = await second(scene)
    assert (await scene.change(email=address)).status_code == 200
    body = {"account_id": scene.mallorys}
    return await scene.mallory.put(f"/programs/{program}", json=body)


async def by_waking_up(scene: Scene, address: str) -> httpx.Response:
    path = f"/accounts/{scene.mallorys}/programs/receiveemail"
    assert (await scene.change(email=address, active="0")).status_code == 200
    assert (await scene.mallory.put(path)).status_code == 200
    return await scene.change(active="1")


CLAIMS = (by_address, by_equipping, by_making, by_subscribing, by_moving_a_program, by_waking_up)


@pytest.mark.parametrize("claim", CLAIMS)
async def test_what_another_serves_is_not_claimed(scene: Scene, claim: Claim) -> None:
    assert await scene.serve(scene.alice, scene.alices, email=SUPPORT) == [200, 200]
    answer = await claim(scene, SUPPORT)
    assert answer.status_code == 417, answer.text
    assert SUPPORT in answer.json()["error"]["message"]
    assert await scene.mails(SUPPORT) == {"alice": 1, "mallory": 0}


@pytest.mark.parametrize(
    "spelled",
    [
        "SUPPORT@MÜNCHEN.example", "support@xn--mnchen-3ya.example", "support+tag@münchen.example",
        "Support+Tag@XN--MNCHEN-3YA.EXAMPLE",
    ],
)  # fmt: skip
async def test_however_it_is_spelled(scene: Scene, spelled: str) -> None:
    assert await scene.serve(scene.alice, scene.alices, email=SUPPORT) == [200, 200]
    assert (await by_equipping(scene, spelled)).status_code == 417
    for destination in (spelled, SUPPORT):
        await scene.mails(destination)
    assert await scene.has("/emails") == {"alice": 2, "mallory": 0}


async def test_what_another_logs_in_with_is_not_claimed(scene: Scene) -> None:
    """Long before its owner has a program."""
    [alice] = [u for u in await scene.node.engine.store.find(User, Query())
               if u.username == "alice"]  # fmt: skip
    await scene.node.engine.store.update(msgspec.structs.replace(alice, email="al@corp.example"))
    assert (await by_equipping(scene, "Al+x@corp.example")).status_code == 417
    assert await scene.serve(scene.alice, scene.alices, email="al@corp.example") == [200, 200]
    assert await scene.mails("al@corp.example") == {"alice": 1, "mallory": 0}


@pytest.mark.parametrize("spelled", ["4930999", "004930999", "+49 30/999", "+4930999"])
@pytest.mark.parametrize("served", [NUMBER, "+49 (30) 999"])
async def test_a_number_neither(scene: Scene, served: str, spelled: str) -> None:
    assert await scene.serve(scene.alice, scene.alices, phone=served) == [200, 200]
    # As a caller id it is anybody's.
    assert await scene.serve(scene.mallory, scene.mallorys, phone=spelled) == [200, 417]
    assert await text(scene, "4930999") is Reception.TAKEN
    assert await scene.has("/smses") == {"alice": 1, "mallory": 0}


async def test_stop_counts_for_all_who_send_from_a_number_nobody_serves(scene: Scene) -> None:
    for client, account in ((scene.alice, scene.alices), (scene.mallory, scene.mallorys)):
        answer = await client.put(f"/accounts/{account}", json={"phone": NUMBER})
        assert answer.status_code == 200
    for words, lines in (("STOP", 1), ("START", 0)):
        assert await text(scene, "4930999", words) is Reception.TAKEN
        assert await scene.has("/do_not_contact") == {"alice": lines, "mallory": lines}


async def test_one_of_many_claims_at_once_wins(scene: Scene) -> None:
    fields = {"email": SUPPORT}
    for client, account in ((scene.alice, scene.alices), (scene.mallory, scene.mallorys)):
        assert (await client.put(f"/accounts/{account}", json=fields)).status_code == 200
    answers: list[int] = []

    async def equip(client: httpx.AsyncClient, account: int) -> None:
        answer = await client.put(f"/accounts/{account}/programs/receiveemail")
        answers.append(answer.status_code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(equip, scene.alice, scene.alices)
        nursery.start_soon(equip, scene.mallory, scene.mallorys)
    assert sorted(answers) == [200, 417]
    assert sorted((await scene.mails(SUPPORT)).values()) == [0, 1]


# --- what stays allowed ---------------------------------------------------------------------------
async def test_ones_own_accounts_may_share_an_address(scene: Scene) -> None:
    await second(scene, email=SUPPORT)
    assert await scene.serve(scene.mallory, scene.mallorys, email=SUPPORT) == [200, 200]


async def test_an_administrator_may_share_one_and_both_can_be_edited(scene: Scene) -> None:
    assert await scene.serve(scene.alice, scene.alices, email=SUPPORT) == [200, 200]
    assert (await scene.change(email=SUPPORT, phone=NUMBER)).status_code == 200
    admin = scene.node.client
    path = f"/accounts/{scene.mallorys}/programs/receiveemail"
    assert (await admin.put(path)).status_code == 200
    assert (await scene.change(first_name="M", email=SUPPORT, phone="1")).status_code == 200
    answer = await scene.alice.put(f"/accounts/{scene.alices}", json={"last_name": "A"})
    assert answer.status_code == 200
    # A spelling that is looked for first is another claim.
    assert (await scene.change(email="support+x@münchen.example")).status_code == 417


async def test_what_is_free_again_can_be_claimed(scene: Scene) -> None:
    assert await scene.serve(scene.alice, scene.alices, email=SUPPORT, phone=NUMBER) == [200] * 3
    assert (await scene.alice.delete(f"/accounts/{scene.alices}/programs")).status_code == 200
    assert await scene.serve(scene.mallory, scene.mallorys, email=SUPPORT, phone=NUMBER) == [
        200, 200, 200,
    ]  # fmt: skip
    assert await scene.mails(SUPPORT) == {"alice": 0, "mallory": 1}


async def test_a_users_new_address_does_not_take_anothers_mail(scene: Scene) -> None:
    """It is copied to the default account, which may have its program already."""
    store = scene.node.engine.store
    assert await scene.serve(scene.alice, scene.alices, email=SUPPORT) == [200, 200]
    assert await scene.serve(scene.mallory, scene.mallorys, email="m@other.example") == [200, 200]
    [mallory] = [u for u in await store.find(User, Query()) if u.username == "mallory"]
    await store.update(msgspec.structs.replace(mallory, permissions=("user_update",)))
    answer = await scene.mallory.put(f"/users/{mallory.id}", json={"email": SUPPORT})
    assert answer.status_code == 417, answer.text
    assert await store.get(User, mallory.id) == msgspec.structs.replace(
        mallory, permissions=("user_update",)
    )
