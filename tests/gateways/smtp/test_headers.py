"""Header fields of ours, judged by the library's parsers (compat32 and default)."""

from __future__ import annotations

import email
import re
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parseaddr
from pathlib import Path
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import InvalidError
from engine.mail import MailAddress, MailFile
from gateways.smtp.headers import address_header, attachment_header, header
from tests.gateways.smtp.strategies import LINE

_WORD = re.compile(rb"=\?utf-8\?[bq]\?[!->@-~]*\?=")


def read(line: bytes) -> str:
    """A field's text, as the library decodes it."""
    name, _, value = line.decode().removesuffix("\r\n").partition(":")
    assert name
    unfolded = value.replace("\r\n", "").removeprefix(" ")
    return str(make_header(decode_header(unfolded)))


def check_form(field: bytes) -> None:
    """RFC 5322 §2.1.1, §2.2.3; RFC 2047 §2."""
    assert field.endswith(b"\r\n")
    lines = field[:-2].split(b"\r\n")
    assert all(line.startswith(b" ") and line.strip() for line in lines[1:])
    for line in lines:
        assert re.fullmatch(rb"[ -~]*", line)
        assert len(line) <= 998
        words = [word for word in line.split() if word.startswith(b"=?utf-8?")]
        assert not words or len(line) <= 76
        assert all(_WORD.fullmatch(word) and len(word) <= 75 for word in words)


@given(LINE)
@example("")
@example("  two  blanks ")
@example("=?utf-8?q?not_a_word?=")
@example("x" * 2000)
@example("word " * 300 + "end")
@example("\u0301" * 300)
@example("\U0001f469\u200d\U0001f4bb" * 40)
def test_a_subject_comes_through(subject: str) -> None:
    field = header("Subject", subject)
    check_form(field)
    assert read(field) == subject


@given(LINE)
def test_no_encoded_word_cuts_a_character(subject: str) -> None:
    for word in re.findall(rb"=\?utf-8\?[bq]\?[^?]*\?=", header("Subject", f"ü{subject}")):
        [(octets, charset)] = decode_header(word.decode())
        assert charset == "utf-8"
        cast("bytes", octets).decode()  # each is UTF-8 by itself (RFC 2047 §5)


@pytest.mark.parametrize("marks", ["e\u0301", "\u0915\u093f", "\U0001f469\u200d\U0001f52c"])
def test_no_encoded_word_begins_with_a_mark(marks: str) -> None:
    words = re.findall(rb"=\?utf-8\?[bq]\?[^?]*\?=", header("Subject", marks * 60))
    assert len(words) > 2
    for word in words:
        text = str(make_header(decode_header(word.decode())))
        assert text == marks * (len(text) // len(marks))


@given(LINE)
@example('Smith, "Jo" \\ Co.')
@example("a@b")
@example(" ")
def test_a_name_comes_through(name: str) -> None:
    field = address_header("To", MailAddress("a@b.example", name))
    check_form(field)
    # email.policy.default puts blanks between encoded words of a name (RFC 2047 §6.2 forbids it).
    phrase, address = parseaddr(str(email.message_from_bytes(field + b"\r\n")["To"]))
    assert address == "a@b.example"
    assert str(make_header(decode_header(phrase))) == name


def test_a_domain_is_ascii_where_that_saves_smtputf8() -> None:
    field = address_header("To", MailAddress("m@bücher.example"))
    assert field == b"To: m@xn--bcher-kva.example\r\n"
    field = address_header("To", MailAddress("jörg@bücher.example", "J"))
    assert field == "To: J <jörg@bücher.example>\r\n".encode()


CONTROLS = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\ud800"]


@pytest.mark.parametrize("control", CONTROLS)
def test_nothing_ends_a_header_early(control: str) -> None:
    evil = f"a{control}Bcc: b@c.example"
    for name, field in (("Subject", "subject"), ("Reply-To", "reply_to"), ("From", "from")):
        with pytest.raises(InvalidError) as caught:
            header(name, evil)
        assert caught.value.field == field
        with pytest.raises(InvalidError) as caught:
            address_header(name, MailAddress("a@b.example", evil))
        assert caught.value.field == field
        with pytest.raises(InvalidError) as caught:
            address_header(name, MailAddress(f"a{control}@b.example"))
        assert caught.value.field == field
    with pytest.raises(InvalidError):
        attachment_header(MailFile(Path("/f"), evil, "text/plain", 1))


@pytest.mark.parametrize(
    "address", ["", "a", "a@", "@b.example", "a@b.example>", "<a@b.example>", "a@b, c@d.example",
                " a@b.example", "a b@c.example", f"{'a' * 65}@b.example"]
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidError) as caught:
        address_header("To", MailAddress(address))
    assert caught.value.field == "to"


def attachment(name: str, kind: str = "application/pdf") -> Message:
    field = attachment_header(MailFile(Path("/f"), name, kind, 1))
    for one in field.split(b"Content-")[1:]:
        check_form(one)
    return email.message_from_bytes(field + b"\r\n")


@given(LINE.map(str.strip).filter(bool))
@example("Rechnung für März.pdf")
@example("\u4f60" * 128)
@example('a";\\ b.pdf')
@example("a  b.pdf")
def test_a_file_name_comes_through(name: str) -> None:
    assert attachment(name).get_filename() == name


@given(st.text(max_size=40))
@example("message/rfc822")
@example("multipart/mixed")
@example('text/plain; charset="x"')
@example("text/html")
def test_a_type_is_two_tokens_or_octets(kind: str) -> None:
    found = attachment("a.bin", kind).get_content_type()
    encodable = not kind.lower().startswith(("message/", "multipart/"))
    if re.fullmatch(r"[A-Za-z0-9!#$&^_.+-]{1,64}/[A-Za-z0-9!#$&^_.+-]{1,64}", kind) and encodable:
        assert found == kind.lower()
    else:
        assert found == "application/octet-stream"
