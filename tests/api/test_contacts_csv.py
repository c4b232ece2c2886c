"""Contact CSV: import and export over HTTP, and the parser on any bytes."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from api.ictcore.contacts_csv import ContactParser, export_line
from engine.imports import CHUNK_ROWS, CUT_OFF, FINISHED_KEPT, MAX_ERRORS
from engine.model import Contact
from engine.store.base import ContactRow
from tests.api.node import Node, made

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
        b"+49 30/1234-5", b"923330000000", b"1*2#", b"(+1)", b"4+9", b"9" * 33, b"12345678901234567890",
        b"phone", b"a@b.c", b"a@b@c", b"@", b"J\xf6rg", "Jörg\u00a0".encode(), "٣".encode(), b"",
        b" ", b"\t", b"'=1", b"''-x", b"O'Brien", b"'x", b"=1", b"x" * 64, b"x" * 65, b"x" * 256,
        "\u3000x".encode(), "\u2028".encode(), b"\xc2\x85", b"\x00", b"\x1c", b"\x7f", b"\r", b"\xef\xbb\xbf",
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
    return [data[start:end] for start, end in zip(places, places[1:], strict=False)]


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
