"""Strangers' mail: what is taken of it, and that nothing of it is dangerous afterwards."""

from __future__ import annotations

import email.policy
import re
from email.message import EmailMessage

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.addresses import plain
from engine.filenames import safe_name
from engine.mail import MailAddress, MailForm, MailMessage
from gateways.smtp.compose import Blueprint
from gateways.smtp.mime import MAX_FILES, read
from gateways.smtp.parsed import Parsed, ParsedBounce
from gateways.smtp.texts import MAX_TEXT
from tests.gateways.smtp.corpus import CORPUS, Hostile, file_part, mail, mixed, mutations, part
from tests.gateways.smtp.strategies import LINE, TEXT
from tests.gateways.smtp.test_compose import attached, crlf, envelope

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def taken(raw: bytes) -> tuple[Parsed, dict[int, bytes]]:
    files: dict[int, bytes] = {}
    parsed = read(raw, files.__setitem__)
    check_harmless(parsed, files)
    return parsed, files


def check_line(line: str) -> None:
    """Fit for a header of ours."""
    assert not _CONTROL.search(line)
    assert len(line) <= 1_000


def check_harmless(parsed: Parsed, files: dict[int, bytes]) -> None:
    """Whatever came: nothing here can end a header, leave a folder or fill a disk."""
    lines = [
        parsed.subject,
        parsed.source.name,
        parsed.source.address,
        parsed.message_id,
        parsed.date,
    ]
    for line in lines:
        check_line(line)
    assert parsed.source.address in ("", plain(parsed.source.address))
    assert max(len(parsed.body), len(parsed.body_alt)) <= MAX_TEXT
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", parsed.body + parsed.body_alt)
    assert not re.search(r"(?i)<(script|iframe|object|style)\b|<[^>]*\son\w+=", parsed.body)
    assert len(parsed.files) <= MAX_FILES
    assert [file.index for file in parsed.files] == list(files) == list(range(len(files)))
    for file in parsed.files:
        assert file.name
        assert safe_name(file.name) == file.name
        assert len(file.name) <= 128
        assert file.size == len(files[file.index])
        assert re.fullmatch(r"[a-z0-9.+-]+/[a-z0-9.+-]+", file.type)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(parsed), type=Parsed) == parsed


@pytest.mark.parametrize("hostile", CORPUS, ids=lambda one: one.name)
def test_hostile_mail_is_read_as_far_as_it_is_harmless(hostile: Hostile) -> None:
    parsed, _ = taken(hostile.raw)
    assert parsed.cut == hostile.cut
    found = {
        "subject": parsed.subject,
        "text": parsed.body_alt,
        "html": parsed.body,
        "files": tuple(file.name for file in parsed.files),
        "source": parsed.source.address,
    }
    for name, value in found.items():
        expected = getattr(hostile, name)
        assert expected is None or value == expected, name


def test_mutations_are_harmless_too() -> None:
    for raw in mutations(10_000):
        taken(raw)


@settings(max_examples=200)
@given(st.binary(max_size=2_000))
def test_any_octets_are_harmless(raw: bytes) -> None:
    taken(raw)


@given(subject=LINE, name=LINE, text=TEXT, octets=st.binary(max_size=300),
       file=LINE.map(safe_name).filter(bool))  # fmt: skip
def test_what_we_send_is_what_we_read(
    subject: str, name: str, text: str, octets: bytes, file: str
) -> None:
    form = MailForm(
        body=("<p>x</p>",), body_alt=(text,), attachments=(attached(file, octets, "x/y"),)
    )
    sender = MailAddress("a@b.example", name)
    chunks = Blueprint(form, [octets]).fill(
        MailMessage(form=form, subject=subject), envelope(sender=sender)
    )
    parsed, files = taken(b"".join(chunks))
    assert parsed.subject == shown(subject)[:1000]
    assert parsed.source == MailAddress("a@b.example", shown(name)[:255])
    words = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", "", crlf(text).replace("\r\n", "\n"))
    if words.strip():
        assert parsed.body_alt == words
    else:
        assert not parsed.body_alt.strip()
    assert list(files.values()) == [octets]


def shown(text: str) -> str:
    marks = r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]+"
    return re.sub(marks, " ", text).strip()


def test_the_librarys_mails_are_read() -> None:
    made = EmailMessage(policy=email.policy.SMTP)
    made["Subject"] = "Gr\u00fc\u00dfe aus M\u00fcnchen " * 5
    made["From"] = "Zo\u00eb M\u00fcller <zoe@example.net>"
    made["Message-ID"] = "<1@example.net>"
    made["Auto-Submitted"] = "auto-replied"
    made.set_content("na\u00efve\n")
    made.add_alternative("<p>na\u00efve</p>\n", subtype="html")
    made.add_attachment(b"%PDF-1.7 x", maintype="image", subtype="x", filename="\u00fcber.pdf")
    made.add_attachment(b"II*\0x", maintype="image", subtype="tiff", filename="a.tif")
    made.add_attachment(b"no TIFF", maintype="image", subtype="tiff", filename="b.tif")
    parsed, files = taken(made.as_bytes())
    assert parsed.subject == made["Subject"].strip()
    assert parsed.source == MailAddress("zoe@example.net", "Zo\u00eb M\u00fcller")
    assert (parsed.body, parsed.body_alt) == ("<p>na\u00efve</p>\n", "na\u00efve\n")
    assert parsed.auto
    assert parsed.message_id == "<1@example.net>"
    assert [(file.name, file.type) for file in parsed.files] == [
        ("\u00fcber.pdf", "application/pdf"), ("a.tif", "image/tiff"),
        ("b.tif", "application/octet-stream"),
    ]  # fmt: skip
    assert list(files.values()) == [b"%PDF-1.7 x", b"II*\0x", b"no TIFF"]


def test_the_biggest_text_counts_where_there_is_no_alternative() -> None:
    parsed, _ = taken(mixed(part(b"text/plain", b"x"), part(b"text/plain", b"the letter")))
    assert parsed.body_alt == "the letter"
    assert [file.name for file in parsed.files] == ["text.txt"]


def test_an_attached_text_is_a_file() -> None:
    parsed, _ = taken(
        mixed(part(b"text/plain", b"x"), file_part(b"attachment", kind=b"text/plain"))
    )
    assert parsed.body_alt == "x"
    assert [file.name for file in parsed.files] == ["text.txt"]


def test_the_digest_is_the_same_whatever_way_a_mail_took() -> None:
    one = mail(b"Subject: a", b"Message-ID: <1@b>", b"Date: x", b"From: a@b.example")
    other = b"Received: by c\r\nReturn-Path: <d@e.example>\r\n" + one
    assert taken(one)[0].digest == taken(other)[0].digest
    digests = {taken(one.replace(old, b"y"))[0].digest for old in (b"<1@b>", b"a@b", b"hello")}
    assert len(digests | {taken(one)[0].digest}) == 4


def test_only_what_looks_like_a_bounce_is_guessed_about() -> None:
    guess = ParsedBounce(heuristic=True)
    asked = {
        subject: read(mail(b"Subject: " + subject), lambda *_: None, lambda _: guess).bounce
        for subject in (b"Undeliverable: x", b"Delivery Status Notification (Failure)", b"Hello")
    }
    assert [found is guess for found in asked.values()] == [True, True, False]
    daemon = mail(b"From: MAILER-DAEMON@b.example (x)")
    assert read(daemon, lambda *_: None, lambda _: guess).bounce is guess


def test_an_empty_text_is_no_file() -> None:
    parsed, _ = taken(mixed(part(b"text/plain", b"x"), part(b"text/plain", b"\r\n ")))
    assert parsed.files == ()
