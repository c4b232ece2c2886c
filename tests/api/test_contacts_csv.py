"""Contact CSV: import and export over HTTP, and the parser on any bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from api.ictcore.contacts_csv import ContactParser, export_line
from engine.imports import CHUNK_ROWS, CUT_OFF, FINISHED_KEPT, MAX_ERRORS
from engine.model import Contact
from engine.store.base import ContactRow
from tests.api.node import Node, made, running_node
from tests.support import wait_until

CSV = (
    b"\xef\xbb\xbfphone,first_name,last_name,email,address,custom1,custom2,custom3,description\r\n"
    b'"923330000000","Valid","Contact","email@domain.com","street, 1","a","b","c","say ""hi"""\r\n'
    b"923331111111\r\n"
    b"\r\n"
    b"too,few\r\n"
    b'"open quote\r\n'
    b"923332222222,J\xf6rg,,,,,,,\r\n"
    b"not a number\r\n"
    b"9233344444,x,x,not-an-address,,,,,\r\n" + b"5" * 9000 + b"\r\n"
    b"923335555555,\x00,,,,,,,\r\n"
    b"923336666666"
)


async def test_a_bad_line_never_loses_the_good_ones(node: Node) -> None:
    group = await made(node.client, "/groups", name="g")
    response = await node.client.post(
        f"/groups/{group}/csv", content=CSV, headers={"Content-Type": "text/csv"}
    )
    assert response.status_code == 200, response.text
    report = response.json()
    assert (report["group_id"], report["imported"], report["rejected"]) == (group, 4, 6)
    assert [error["line"] for error in report["errors"]] == [5, 6, 8, 9, 10, 11]
    people = (await node.client.get(f"/groups/{group}/contacts")).json()
    assert [p["phone"] for p in people] == [
        "923330000000", "923331111111", "923332222222", "923336666666",
    ]  # fmt: skip
    assert people[0]["description"] == 'say "hi"'
    assert people[0]["address"] == "street, 1"
    assert people[2]["first_name"] == "Jörg"


async def test_an_export_can_be_imported_again(node: Node) -> None:
    first, second = [await made(node.client, "/groups", name=name) for name in "ab"]
    contact = await made(
        node.client, "/contacts", phone="+1", first_name="=SUM(A1)", last_name="'-x", custom1='"'
    )
    await node.client.put(f"/contacts/{contact}/link/{first}")
    exported = await node.client.get(f"/groups/{first}/csv")
    assert exported.headers["Content-Type"].startswith("text/csv")
    assert f'filename="group_{first}.csv"' in exported.headers["Content-Disposition"]
    assert exported.text == '"+1","\'=SUM(A1)","\'\'-x","","","""","","",""\n'
    response = await node.client.post(f"/groups/{second}/csv", content=exported.content)
    assert response.json()["imported"] == 1
    again = await node.client.get(f"/groups/{second}/csv")
    assert again.content == exported.content


async def test_a_large_import_and_export_stream(node: Node) -> None:
    group = await made(node.client, "/groups", name="g")
    content = b"".join(b"%d,Name %d,,,,,,,\n" % (n, n) for n in range(12_000))
    response = await node.client.post(f"/groups/{group}/csv", content=content)
    assert response.json() == {"group_id": group, "imported": 12_000, "rejected": 0, "errors": []}
    exported = await node.client.get(f"/groups/{group}/csv")
    assert exported.text.count("\n") == 12_000
    assert (await node.client.get(f"/groups/{group}")).json()["contact_total"] == 12_000
    listed = await node.client.get(f"/groups/{group}/contacts")
    assert len(listed.json()) == 5000
    assert 'rel="next"' in listed.headers["Link"]


async def test_errors_are_counted_beyond_those_reported(node: Node) -> None:
    group = await made(node.client, "/groups", name="g")
    response = await node.client.post(f"/groups/{group}/csv", content=b"x\n" * 250)
    report = response.json()
    assert (report["imported"], report["rejected"]) == (0, 250)
    assert len(report["errors"]) == MAX_ERRORS


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"", "text/csv", 411),
        (b"1\n", "application/json", 415),
        (b"1\n", "multipart/form-data", 415),
    ],
)
async def test_what_is_no_csv_is_refused(
    node: Node, content: bytes, content_type: str, status: int
) -> None:
    group = await made(node.client, "/groups", name="g")
    headers = {"Content-Type": content_type}
    response = await node.client.post(f"/groups/{group}/csv", content=content, headers=headers)
    assert response.status_code == status


async def test_the_sample_can_be_imported(node: Node) -> None:
    group = await made(node.client, "/groups", name="g")
    sample = await node.client.get("/groups/sample/csv")
    assert "contact_sample.csv" in sample.headers["Content-Disposition"]
    response = await node.client.post(f"/groups/{group}/csv", content=sample.content)
    assert (response.json()["imported"], response.json()["rejected"]) == (2, 0)


# --- progress --------------------------------------------------------------------------------
def lines(count: int, first: int = 0) -> bytes:
    return b"".join(b"%d,Name,,,,,,,\n" % (1000 + n) for n in range(first, first + count))


async def progress(node: Node, group: int) -> list[dict[str, Any]]:
    response = await node.client.get(f"/groups/{group}/csv/progress")
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()
    return found


async def until_stored(node: Node, group: int, contacts: int) -> None:
    async def stored() -> bool:
        shown = (await node.client.get(f"/groups/{group}")).json()
        return bool(shown["contact_total"] >= contacts)

    await wait_until(stored, f"{contacts} contacts in the group")


async def test_an_import_shows_how_far_it_is(node: Node) -> None:
    group, other = [await made(node.client, "/groups", name=name) for name in "ab"]
    first, last = b"bad\n" + lines(8 * CHUNK_ROWS), lines(7)
    go_on = trio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield first
        await go_on.wait()
        yield last

    async with trio.open_nursery() as nursery:

        async def post() -> None:
            response = await node.client.post(f"/groups/{group}/csv", content=body())
            assert response.json()["imported"] == 8 * CHUNK_ROWS + 7

        nursery.start_soon(post)
        await until_stored(node, group, CHUNK_ROWS)
        [running] = await progress(node, group)
        assert running["state"] == "running"
        assert running["imported"] in range(CHUNK_ROWS, 8 * CHUNK_ROWS + 1, CHUNK_ROWS)
        assert 0 < running["bytes_received"] <= len(first)
        assert (running["bytes_expected"], running["finished"]) == (None, None)
        go_on.set()
    [done] = await progress(node, group)
    assert done["state"] == "done"
    assert done["import_id"] == running["import_id"]
    assert (done["imported"], done["rejected"]) == (8 * CHUNK_ROWS + 7, 1)
    assert [error["line"] for error in done["errors"]] == [1]
    assert done["bytes_received"] == len(first) + len(last)
    assert running["started"] <= done["finished"]
    assert await progress(node, other) == []
    statistics = node.engine.statistics()["imports"]
    assert (statistics["running"], statistics["imported"]) == (0, 8 * CHUNK_ROWS + 7)


async def test_an_import_cut_off_says_what_it_stored(node: Node) -> None:
    group = await made(node.client, "/groups", name="g")
    content = lines(8 * CHUNK_ROWS)
    head = (
        f"POST /groups/{group}/csv HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
        f"Authorization: {node.client.headers['Authorization']}\r\n"
        f"Content-Length: {len(content) + 1}\r\n\r\n"
    )
    async with await node.raw() as stream:
        await stream.send_all(head.encode() + content)
        await until_stored(node, group, CHUNK_ROWS)

    async def ended() -> bool:
        return [one["state"] for one in await progress(node, group)] == ["failed"]

    await wait_until(ended, "the import is over")
    [cut_off] = await progress(node, group)
    assert (cut_off["reason"], cut_off["rejected"]) == (CUT_OFF, 0)
    assert cut_off["bytes_expected"] == len(content) + 1
    assert cut_off["imported"] % CHUNK_ROWS == 0
    stored = (await node.client.get(f"/groups/{group}")).json()["contact_total"]
    assert stored == cut_off["imported"] > 0
    exported = await node.client.get(f"/groups/{group}/csv")
    assert exported.text.count("\n") == stored
    assert node.engine.statistics()["imports"]["failed"] == 1


async def test_an_import_into_a_group_that_goes_away_ends(node: Node) -> None:
    group = await made(node.client, "/groups", name="g")
    gone = trio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield lines(8 * CHUNK_ROWS)
        await gone.wait()
        yield lines(2 * CHUNK_ROWS)

    async with trio.open_nursery() as nursery:

        async def post() -> None:
            response = await node.client.post(f"/groups/{group}/csv", content=body())
            assert response.status_code == 404

        nursery.start_soon(post)
        await until_stored(node, group, CHUNK_ROWS)
        assert (await node.client.delete(f"/groups/{group}")).status_code == 200
        gone.set()
    [failed] = node.engine.imports.of(group)
    assert failed.failure
    assert failed.imported >= CHUNK_ROWS
    assert (await node.client.get(f"/groups/{group}/csv/progress")).status_code == 404


async def test_a_body_beyond_the_limit_keeps_what_was_stored(tmp_path: Path) -> None:
    content = lines(8 * CHUNK_ROWS)
    async with running_node(tmp_path, max_csv_bytes=len(content) - 1) as node:
        group = await made(node.client, "/groups", name="g")

        async def body() -> AsyncIterator[bytes]:
            yield content

        response = await node.client.post(f"/groups/{group}/csv", content=body())
        assert response.status_code == 413
        announced = await node.client.post(f"/groups/{group}/csv", content=content)
        assert announced.status_code == 413
        [failed] = await progress(node, group)
        assert failed["state"] == "failed"
        assert str(len(content) - 1) in failed["reason"]
        shown = (await node.client.get(f"/groups/{group}")).json()
        assert shown["contact_total"] == failed["imported"] >= CHUNK_ROWS


async def test_several_imports_into_one_group_lose_nothing(node: Node) -> None:
    group = await made(node.client, "/groups", name="g")

    async def post(first: int) -> None:
        content = lines(6000, first)
        response = await node.client.post(f"/groups/{group}/csv", content=content)
        assert response.json()["imported"] == 6000

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(post, number * 6000)
    exported = await node.client.get(f"/groups/{group}/csv")
    assert sorted(exported.text.splitlines()) == sorted(
        f'"{1000 + n}","Name","","","","","","",""' for n in range(24_000)
    )
    assert len({one["import_id"] for one in await progress(node, group)}) == 4


async def test_the_last_imports_are_kept_and_no_more(node: Node) -> None:
    group = await made(node.client, "/groups", name="g")
    for number in range(FINISHED_KEPT + 2):
        await node.client.post(f"/groups/{group}/csv", content=b"%d\n" % (1 + number))
    ids = [one["import_id"] for one in await progress(node, group)]
    assert ids == list(range(FINISHED_KEPT + 2, 2, -1))


async def test_progress_is_shown_to_whom_the_group_is(node: Node) -> None:
    group = await made(node.client, "/groups", name="g")
    await node.client.post(f"/groups/{group}/csv", content=b"1\n")
    stranger = await node.user("mallory", "user")
    assert (await stranger.get(f"/groups/{group}/csv/progress")).status_code == 404
    nobody = await node.speaking()
    assert (await nobody.get(f"/groups/{group}/csv/progress")).status_code == 401
    assert len(await progress(node, group)) == 1


# --- the parser ------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_an_endless_line_costs_one_line_and_no_memory(size: int) -> None:
    data = b"1\n" + b"9" * 100_000 + b"\n2\n" + b"8" * 50_000
    parser = ContactParser()
    rows = [
        row
        for start in range(0, len(data), size)
        for row in parser.feed(data[start : start + size])
    ]
    rows += parser.finish()
    assert [row.phone for row in rows] == ["1", "2"]
    assert [error.line for error in parser.errors] == [2, 4]


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60).map(str.strip)


@given(
    st.lists(
        st.builds(
            ContactRow,
            phone=st.from_regex(r"\+?[0-9]{1,15}", fullmatch=True),
            first_name=TEXT, last_name=TEXT, address=TEXT, custom1=TEXT, custom2=TEXT,
            custom3=TEXT, description=TEXT,
        ),
        max_size=8,
    ),
    st.integers(1, 50),
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_exported_is_imported_the_same(rows: list[ContactRow], size: int) -> None:
    fields = ContactRow.__struct_fields__
    contacts = [Contact(**{name: getattr(row, name) for name in fields}) for row in rows]
    data = "".join(map(export_line, contacts)).encode()
    parser = ContactParser()
    read = [
        row
        for start in range(0, len(data), size)
        for row in parser.feed(data[start : start + size])
    ]
    read += parser.finish()
    assert parser.errors == []
    assert read == rows


# Pieces of lines that mean something to one rule or another, good and bad.
WORDS = st.sampled_from(
    [
        b"+49 30/1234-5", b"923330000000", b"1*2#", b"(+1)", b"4+9", b"9" * 33, b"1" * 20,
        b"phone", b"a@b.c", b"a@b@c", b"@", b"J\xf6rg", "Jörg\u00a0".encode(), "٣".encode(), b"",
        b" ", b"\t", b"'=1", b"''-x", b"O'Brien", b"'x", b"=1", b"x" * 64, b"x" * 65, b"x" * 256,
        "\u3000x".encode(), "\u2028".encode(), b"\xc2\x85", b"\x00", b"\x1c", b"\x7f", b"\r",
        b"\xef\xbb\xbf",
        b"y" * 2100, b"z" * 8193, b'"', b'""', b'"a"', b'" a"', b' "a', b'a"', b'"a""b"', b'"a" ',
    ]
)  # fmt: skip
BARE = st.one_of(WORDS, WORDS, WORDS, st.binary(max_size=6))
QUOTED = BARE.map(lambda cell: b'"' + cell.replace(b'"', b'""') + b'"')
CELLS = [b"923330000000", b"Ada", b"", b"a@b.c", b'"1, Row"', b"b", b'"c ""d"""', b"e", b"f"]


def with_one(place: int, cell: bytes) -> bytes:
    """A good line but for one cell."""
    return b",".join([*CELLS[:place], cell, *CELLS[place + 1 :]])


ONE_ODD = st.builds(with_one, st.integers(0, 8), st.one_of(BARE, QUOTED))
NOBODY = st.builds(lambda blank: b",Ada,," + blank + b",,,,,", st.sampled_from([b"", b" ", b'""']))
GOOD = st.just(b",".join(CELLS))
OTHER = st.one_of(BARE, QUOTED, st.lists(BARE, max_size=10).map(b",".join))
FULL = st.lists(st.one_of(ONE_ODD, ONE_ODD, GOOD, NOBODY, OTHER), max_size=20)
PHONES = st.lists(st.one_of(st.just(b"+49 30"), OTHER), max_size=20)
FILE = st.builds(
    lambda lines, ends: b"".join(line + end for line, end in zip(lines, ends, strict=False)),
    st.one_of(FULL, FULL, PHONES),
    st.lists(st.sampled_from([b"\n", b"\r\n", b"\r\r\n"]), min_size=20, max_size=20),
)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """``data`` in pieces that end at these places."""
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def outcome_of(pieces: list[bytes], *, line_by_line: bool) -> tuple[object, ...]:
    parser = ContactParser(line_by_line=line_by_line)
    rows = [row for piece in pieces for row in parser.feed(piece)] + parser.finish()
    return rows, parser.rejected, parser.errors


@given(
    st.one_of(FILE, FILE.map(lambda f: b"\n" + f + b"1"), st.binary(max_size=300)),
    st.lists(st.integers(0)),
)
@example(b'1\n"open\nshut"\n2\n3\n', [])
@example(b"1\n" + with_one(1, b' "a"') + b"\n", [])
@example(b"1\n" + with_one(1, b'"a" ') + b"\n" + with_one(2, b"x") + b"\n", [])
@example(b"1\n" + with_one(1, b" " * 8192) + b"\n", [])
@example(b"1\n" + with_one(1, b"a\x7f") + b"\n", [])
@example(b"1\n" + with_one(1, b'"a\rb"') + b"\r\n" + with_one(2, b"x") + b"\r\n", [])
@example(b"1\n" + with_one(0, b"++1") + b"\n", [])
@example(b"1\n" + (b"1,,,,,,,,\n" + b"1\n" * 2) * 3, [])
@example(b"1\n" + (b"1,,,,,,,,\n" * 2 + b"1\n") * 3, [])
@settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
def test_many_lines_at_once_give_what_one_by_one_gives(data: bytes, cuts: list[int]) -> None:
    alone = outcome_of([data], line_by_line=True)
    assert outcome_of(cut(data, cuts), line_by_line=False) == alone
    assert outcome_of([data], line_by_line=False) == alone


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_any_bytes_in_any_pieces_give_the_same_lines(pieces: list[bytes]) -> None:
    split, whole = ContactParser(), ContactParser()
    rows = [row for piece in pieces for row in split.feed(piece)] + split.finish()
    assert rows == whole.feed(b"".join(pieces)) + whole.finish()
    assert split.errors == whole.errors
