"""/users/csv: users out to a spreadsheet and in from one."""

from __future__ import annotations

import csv
import io

import httpx
import pytest

from api.ictcore.users_csv import MAX_USERS
from tests.api.node import PASSWORD, Node, made
from tests.api.test_access import assert_refused, basic

HEADER = "username,passwd,first_name,last_name,email,address,company,active"


async def imported(client: httpx.AsyncClient, text: str | bytes) -> dict[str, object]:
    content = text.encode() if isinstance(text, str) else text
    headers = {"Content-Type": "text/csv"}
    response = await client.post("/users/csv", content=content, headers=headers)
    assert response.status_code == 200, response.text
    body: dict[str, object] = response.json()
    return body


async def users_of(client: httpx.AsyncClient) -> dict[str, dict[str, object]]:
    return {user["username"]: user for user in (await client.get("/users")).json()}


async def test_the_good_lines_are_stored_and_the_bad_ones_numbered(node: Node) -> None:
    report = await imported(
        node.client,
        f"{HEADER}\n"
        f'ada,{PASSWORD},Ada,"Lovelace, Countess",ada@example.com,"1 Way\nLondon",Engines,1\n'
        "\n"
        "bob,,,,nowhere,,,1\n"
        "too,few\n"
        "ada,,,,,,,1\n"
        "eve,,Eve,,,,,0\n",
    )
    assert (report["imported"], report["rejected"]) == (2, 3)
    errors = report["errors"]
    assert isinstance(errors, list)
    assert [error["line"] for error in errors] == [5, 6, 7]
    assert "email" in errors[0]["error"]
    assert "2 columns instead of 8" in errors[1]["error"]
    assert "exists already" in errors[2]["error"]
    users = await users_of(node.client)
    assert users["ada"]["last_name"] == "Lovelace, Countess"
    assert users["ada"]["address"] == "1 Way\nLondon"
    assert (users["ada"]["active"], users["eve"]["active"]) == (1, 0)
    assert "bob" not in users


async def test_an_imported_user_logs_in_with_its_password(node: Node) -> None:
    await imported(node.client, f"passwd,username\n{PASSWORD},ada\n,bob\n'=x,eve\n")
    for name, password, status in (
        ("ada", PASSWORD, 200), ("bob", "", 401), ("eve", "'=x", 200), ("eve", "=x", 401),
    ):  # fmt: skip
        client = await node.speaking(Authorization=basic(name, password))
        assert (await client.get("/contacts")).status_code == status, name
    ada = (await users_of(node.client))["ada"]
    (account,) = (await node.client.get(f"/users/{ada['user_id']}/accounts")).json()
    assert account["username"] == "ada"


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfusername,company\r\nada,Caf\xc3\xa9\r\n",
        b"username,company\r\nada,Caf\xe9\r\n",
        b'Username, Company\nada, "Caf\xc3\xa9"',
    ],
)
async def test_what_spreadsheets_write_is_read(node: Node, text: bytes) -> None:
    assert (await imported(node.client, text))["imported"] == 1
    assert (await users_of(node.client))["ada"]["company"] == "Café"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", 411),
        ("\n", 411),
        ("ada,secret\n", 412),
        ("username,role\nada,admin\n", 412),
        ("username,roles\nada,admin\n", 412),
        ("username,username\na,b\n", 412),
        ("company\nx\n", 412),
        ("u\0s\n", 412),
        ("username\n" + "x\n" * (MAX_USERS + 1), 412),
    ],
)
async def test_a_file_that_is_none_is_refused_whole(node: Node, text: str, status: int) -> None:
    headers = {"Content-Type": "text/csv"}
    response = await node.client.post("/users/csv", content=text.encode(), headers=headers)
    assert_refused(response, status)
    assert list(await users_of(node.client)) == ["admin"]


async def test_a_quote_left_open_costs_the_rest_and_nothing_before(node: Node) -> None:
    report = await imported(node.client, 'username,company\nada,x\nbob,"y\neve,z\n')
    assert (report["imported"], report["rejected"]) == (1, 1)
    assert list(await users_of(node.client)) == ["admin", "ada"]


async def test_the_export_has_the_columns_of_the_guide_and_no_passwords(node: Node) -> None:
    await made(
        node.client, "/users", username="ada", password=PASSWORD, first_name="Ada",
        address="1 Way\nLondon", company='"Engines", Ltd',
    )  # fmt: skip
    response = await node.client.get("/users/csv")
    assert response.headers["content-type"].startswith("text/csv")
    assert "users.csv" in response.headers["content-disposition"]
    assert response.text.splitlines()[0] == HEADER
    rows = list(csv.DictReader(io.StringIO(response.text, newline="")))
    assert [row["username"] for row in rows] == ["admin", "ada"]
    assert (rows[1]["address"], rows[1]["company"]) == ("1 Way\nLondon", '"Engines", Ltd')
    assert all(row["passwd"] == "" for row in rows)
    only = await node.client.get("/users/csv", params={"username": "ada"})
    assert len(list(csv.DictReader(io.StringIO(only.text, newline="")))) == 1
    page = await node.client.get("/users/csv?limit=1&offset=1")
    assert [row["username"] for row in csv.DictReader(io.StringIO(page.text))] == ["ada"]


async def test_exported_cells_are_no_formulas_and_come_back_as_they_were(node: Node) -> None:
    cells = ["=cmd()", "+1", "-1", "@x", "'=x", "'quoted", "plain"]
    for number, cell in enumerate(cells):
        await made(node.client, "/users", username=f"u{number}", company=cell)
    text = (await node.client.get("/users/csv")).text
    rows = list(csv.DictReader(io.StringIO(text)))[1:]
    assert [row["company"][0] in "=+-@" for row in rows] == [False] * len(cells)
    ids = [user["user_id"] for user in (await users_of(node.client)).values()][1:]
    for user_id in ids:
        await node.client.delete(f"/users/{user_id}")
    assert (await imported(node.client, text))["imported"] == len(cells)
    users = list((await users_of(node.client)).values())[1:]
    assert [user["company"] for user in users] == cells


async def test_nobody_exports_whom_he_does_not_see(node: Node) -> None:
    lister = await node.user("lister", "user")
    assert_refused(await lister.get("/users/csv"), 403)
    assert_refused(await lister.post("/users/csv", content=b"username\nx\n"), 403)
    user_id = (await users_of(node.client))["lister"]["user_id"]
    (row,) = (await node.client.get("/permissions?name=user_list")).json()
    await node.client.put(f"/users/{user_id}/permissions/{row['permission_id']}")
    rows = csv.DictReader(io.StringIO((await lister.get("/users/csv")).text))
    assert [row["username"] for row in rows] == ["lister"]
