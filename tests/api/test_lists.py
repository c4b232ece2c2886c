"""What every list can do beyond ICTCore's: sort, page, total. Over HTTP."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.ictcore import campaigns, contacts
from api.paging import parse, sort_pattern, sortable
from api.routing import Rows
from api.web import DIALECTS
from engine.errors import InvalidError
from tests.api.node import Node, made

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
