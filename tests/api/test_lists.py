"""What every list can do beyond ICTCore's: sort, page, total. Over HTTP."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.ictcore import campaigns, contacts
from api.ictcore.translate import MAX_ANSWER_OCTETS
from api.paging import MAX_PAGE_OCTETS, parse, sort_pattern, sortable
from api.routing import Rows
from api.web import DIALECTS
from engine.errors import InvalidError
from engine.model import Template, Transmission
from tests.api.node import Node, made, made_program

NAMES = ("Cleo", "adam", "Bert", "adam")


async def people(node: Node) -> list[int]:
    """Contacts of those names, in that order."""
    return [
        await made(node.client, "/contacts", first_name=name, phone=str(number))
        for number, name in enumerate(NAMES, 1)
    ]


async def ids(node: Node, path: str, key: str, **args: object) -> list[int]:
    response = await node.client.get(path, params={k: str(v) for k, v in args.items()})
    assert response.status_code == 200, response.text
    return [row[key] for row in response.json()]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("", [0, 1, 2, 3]),
        ("contact_id", [0, 1, 2, 3]),
        ("-contact_id", [3, 2, 1, 0]),
        ("-id", [3, 2, 1, 0]),
        ("phone", [0, 1, 2, 3]),
        ("first_name", [2, 0, 1, 3]),  # as bytes: capitals first; ties by id
        ("-first_name", [3, 1, 0, 2]),
        ("first_name,-id", [2, 0, 3, 1]),
        (" first_name , -phone ", [2, 0, 3, 1]),
        ("-date_created", [3, 2, 1, 0]),
    ],
)
async def test_sort(node: Node, sort: str, expected: list[int]) -> None:
    made_ids = await people(node)
    found = await ids(node, "/contacts", "contact_id", sort=sort)
    assert [made_ids.index(contact_id) for contact_id in found] == expected


async def test_members_of_a_group_are_sorted_too(node: Node) -> None:
    """The group's own order comes out of another index than that of all contacts."""
    group = await made(node.client, "/groups", name="people")
    made_ids = await people(node)
    for contact_id in reversed(made_ids):
        await node.client.put(f"/contacts/{contact_id}/link/{group}")
    path = f"/groups/{group}/contacts"
    assert await ids(node, path, "contact_id") == made_ids
    assert await ids(node, path, "contact_id", sort="-id") == made_ids[::-1]
    newest = await ids(node, path, "contact_id", sort="-phone", limit=2)
    assert newest == [made_ids[3], made_ids[2]]


@pytest.mark.parametrize("sort", ["nonsense", "-nonsense", "phone,nonsense", "group_id", "before"])
async def test_an_unknown_field_is_named(node: Node, sort: str) -> None:
    response = await node.client.get("/contacts", params={"sort": sort})
    assert response.status_code == 412
    message = response.json()["error"]["message"]
    assert message.startswith("sort: ")
    assert repr(sort.rsplit(",", maxsplit=1)[-1].removeprefix("-")) in message


async def test_pages_and_their_total(node: Node) -> None:
    made_ids = await people(node)
    seen: list[int] = []
    path = "/contacts?limit=3&sort=-phone"
    for shown in (3, 1):
        page = await node.client.get(path)
        assert page.headers["X-Total-Count"] == "4"
        assert len(page.json()) == shown
        seen += [row["contact_id"] for row in page.json()]
        match = re.match(r'<(.+)>; rel="next"', page.headers.get("Link", ""))
        path = match[1] if match else ""
    assert path == "", "no further page"
    assert seen == made_ids[::-1]


async def pages(node: Node, path: str) -> list[list[dict[str, Any]]]:
    """Every page of a list, by its links."""
    found = []
    while path:
        page = await node.client.get(path)
        assert page.status_code == 200, page.text
        assert len(page.content) <= MAX_ANSWER_OCTETS
        found.append(page.json())
        match = re.match(r'<(.+)>; rel="next"', page.headers.get("Link", ""))
        path = match[1] if match else ""
    return found


@pytest.mark.parametrize("mount", ["", "/api"])
@pytest.mark.parametrize("letter", ["x", "€"])
async def test_a_page_of_long_rows_ends_early(node: Node, letter: str, mount: str) -> None:
    size = 900_000 * (3 if letter == "€" else 1)
    kept = [
        await node.engine.store.insert(Template(name="long", body=letter * 900_000, owner_id=1))
        for _ in range(MAX_PAGE_OCTETS // size + 2)
    ]
    first = await node.client.get(f"{mount}/templates")
    assert first.headers["X-Total-Count"] == str(len(kept))
    fitting = MAX_PAGE_OCTETS // size
    for args in ("", "?sort=-template_id", "?limit=1000", f"?limit={fitting + 1}"):
        found = await pages(node, f"{mount}/templates{args}")
        assert [len(page) for page in found] == [fitting, 2], args
        ids = [int(row["template_id"]) for page in found for row in page]
        assert sorted(ids) == [row.id for row in kept]


async def test_a_row_longer_than_a_page_has_a_page_of_its_own(node: Node) -> None:
    """Such a row cannot come by the API, but may have come otherwise."""
    for size in (1, MAX_ANSWER_OCTETS // 2, 1):
        await node.engine.store.insert(
            Template(name="t", body="x" * size, body_alt="y" * size, owner_id=1)
        )
    shown = [await node.client.get(f"/templates?limit=1000&offset={place}") for place in (0, 1)]
    assert [len(page.json()) for page in shown] == [1, 1]
    assert shown[0].headers["Link"] == '</templates?limit=1000&offset=1>; rel="next"'
    assert "offset=2" in shown[1].headers["Link"]


async def test_rows_that_repeat_another_end_their_page_too(node: Node) -> None:
    """Each transmission shows its account, whose settings may be long."""
    program = await made_program(node.client)
    contact = await made(node.client, "/contacts", phone="1")
    settings = {"note": "x" * 16_000}
    account = await made(node.client, "/accounts", settings=settings, active=1)
    count = MAX_ANSWER_OCTETS // 16_000 + 10
    row = Transmission(program_id=program, contact_id=contact, account_id=account, owner_id=1)
    rows = [msgspec.structs.replace(row, uid=uuid4()) for _ in range(count)]
    await node.engine.store.save_all(rows)
    found = await pages(node, "/transmissions")
    assert len(found) == 2
    assert len({row["transmission_id"] for page in found for row in page}) == count


@pytest.mark.parametrize(
    ("args", "shown", "total"),
    [
        ({}, 4, 4),
        ({"limit": 4}, 4, 4),
        ({"limit": 1}, 1, 4),
        ({"limit": 2, "offset": 3}, 1, 4),
        ({"offset": 9}, 0, 4),
        ({"first_name": "dam", "limit": 1}, 1, 2),
        ({"first_name": "nobody"}, 0, 0),
        ({"first_name": "nobody", "offset": 5}, 0, 0),
    ],
)
async def test_the_total_counts_what_matches(
    node: Node, args: dict[str, str | int], shown: int, total: int
) -> None:
    await people(node)
    page = await node.client.get("/contacts", params=args)
    assert (len(page.json()), page.headers["X-Total-Count"]) == (shown, str(total))


async def test_a_total_counts_nobody_elses_rows(node: Node) -> None:
    await people(node)
    other = await node.user("other", "user")
    await made(other, "/contacts", phone="9")
    page = await other.get("/contacts", params={"limit": 1})
    assert page.headers["X-Total-Count"] == "1"


async def test_every_list_has_its_total_and_sorts(node: Node) -> None:
    """Every list without parameters in its path, by every field its OpenAPI entry promises."""
    await people(node)
    for dialect in DIALECTS.values():
        for route in dialect.routes:
            if route.answer is not Rows or "{" in route.path:
                continue
            path = dialect.prefix + route.path
            page = await node.client.get(path)
            assert page.headers["X-Total-Count"] == str(len(page.json())), path
            for name in sortable(route.filters or {}):
                sorted_page = await node.client.get(path, params={"sort": f"-{name}"})
                assert sorted_page.status_code == 200, (path, name, sorted_page.text)


@given(st.text(max_size=40) | st.from_regex(sort_pattern(campaigns.FILTERS), fullmatch=True))
def test_any_sort_is_taken_or_refused_by_name(text: str) -> None:
    refused = ""
    try:
        order = parse({"sort": text}, campaigns.FILTERS).order
    except InvalidError as error:
        refused = error.field
    if refused:
        assert refused == "sort"
        assert not re.fullmatch(sort_pattern(campaigns.FILTERS), text)
    else:
        fields = set(sortable(campaigns.FILTERS).values())
        assert {key.removeprefix("-") for key in order.split(",")} <= fields


def test_only_fields_of_the_row_itself_sort() -> None:
    assert "group_id" not in sortable(contacts.FILTERS), "a contact may be in many groups"
    assert "program_type" not in sortable(campaigns.FILTERS)
    assert "before" not in sortable(campaigns.FILTERS)
