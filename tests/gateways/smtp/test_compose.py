"""Mails as they go out, judged by the library's parser and by dkimpy."""

from __future__ import annotations

import email
import email.policy
import hashlib
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import cast

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidError
from engine.mail import MailAddress, MailFile, MailForm, MailMessage
from gateways.smtp.compose import Blueprint, Envelope
from gateways.smtp.dkim import Signer
from tests.gateways.smtp.strategies import LINE, TEXT
from tests.support.mail.dkim_keys import Keys

KEYS = Keys("example.org")
SIGNERS = tuple(Signer(f"{kind}._domainkey.example.org", KEYS.pem(kind)) for kind in KEYS.kinds)
AT = datetime.fromtimestamp(int(time.time()) - 60, UTC)
URL = "https://node.example.org/unsubscribe/abcDEF_-123"
HTML = ("<p>Dear ", ",</p>\n  <p>see <a href='", "'>this</a>.</p>\n")
PLAIN = ("Dear ", ",\nsee ", ".\n")
VALUES = ("Zo\u00eb &amp; Co", "https://example.org/?a=1")


def envelope(**changes: object) -> Envelope:
    fields: dict[str, object] = {
        "sender": MailAddress("news@example.org", "Ren\u00e9 & Partner"),
        "to": MailAddress("zoe@example.net", "Zo\u00eb"),
        "message_id": "<o1f.abc@example.org>",
        "at": AT,
        "reply_to": "answers@example.org",
    }
    return Envelope(**cast("dict[str, str]", fields | changes))  # type: ignore[arg-type]


def message(form: MailForm, subject: str = "Gr\u00fc\u00dfe", url: str = URL) -> MailMessage:
    return MailMessage(
        form=form,
        subject=subject,
        body=VALUES[: max(len(form.body) - 1, 0)],
        body_alt=VALUES[: max(len(form.body_alt) - 1, 0)],
        unsubscribe=url,
    )


def attached(name: str, octets: bytes, kind: str = "application/pdf") -> MailFile:
    return MailFile(Path("/nowhere"), name, kind, len(octets))


def read(chunks: Sequence[bytes]) -> EmailMessage:
    found = email.message_from_bytes(b"".join(chunks), policy=email.policy.default)
    assert not [defect for part in found.walk() for defect in part.defects]
    return found


def text_of(part: object) -> str:
    return cast("bytes", cast("EmailMessage", part).get_payload(decode=True)).decode()


def crlf(text: str) -> str:
    return re.sub("\r\n|\r|\n", "\r\n", text)


def woven(fixed: Sequence[str], values: Sequence[str]) -> str:
    parts = [fixed[0]]
    for value, after in zip(values, fixed[1:], strict=True):
        parts += [crlf(value), crlf(after)]
    return crlf(parts[0]) + "".join(parts[1:])


def test_headers_stand_in_their_order() -> None:
    form = MailForm(body_alt=PLAIN)
    found = read(Blueprint(form, []).fill(message(form), envelope(), SIGNERS))
    assert found.keys() == [
        *["DKIM-Signature"] * len(SIGNERS), "Date", "From", "To", "Subject", "Message-ID",
        "Reply-To", "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
        "List-Unsubscribe", "List-Unsubscribe-Post",
    ]  # fmt: skip
    assert found["Subject"] == "Gr\u00fc\u00dfe"
    assert found["From"].addresses[0].display_name == "Ren\u00e9 & Partner"
    assert found["To"].addresses[0].display_name == "Zo\u00eb"
    assert found["Date"].datetime == AT
    assert found["Message-ID"] == "<o1f.abc@example.org>"
    assert found["List-Unsubscribe"] == f"<{URL}>"
    assert found["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


def test_nothing_to_unsubscribe_is_nothing_in_the_header() -> None:
    form = MailForm(body_alt=PLAIN)
    found = read(Blueprint(form, []).fill(message(form, url=""), envelope(reply_to="")))
    assert "List-Unsubscribe" not in found
    assert "List-Unsubscribe-Post" not in found
    assert "Reply-To" not in found


PDF = bytes(range(256)) * 300
EML = b"Subject: x\r\n\r\n.\r\nFrom me\r\n"


@pytest.mark.parametrize(
    ("form", "shape"),
    [
        (MailForm(body_alt=PLAIN), ["text/plain"]),
        (MailForm(body=HTML), ["text/html"]),
        (MailForm(body=HTML, body_alt=PLAIN), ["multipart/alternative", "text/plain", "text/html"]),
        (
            MailForm(body_alt=PLAIN, attachments=(attached("a.pdf", PDF),)),
            ["multipart/mixed", "text/plain", "application/pdf"],
        ),
        (
            MailForm(
                body=HTML,
                body_alt=PLAIN,
                attachments=(attached("a.pdf", PDF), attached("\u4f60.eml", EML, "message/rfc822")),
            ),
            ["multipart/mixed", "multipart/alternative", "text/plain", "text/html",
             "application/pdf", "application/octet-stream"],
        ),
    ],
)  # fmt: skip
def test_only_what_is_there(form: MailForm, shape: list[str]) -> None:
    octets = [PDF, EML][: len(form.attachments)]
    found = read(Blueprint(form, octets).fill(message(form), envelope()))
    parts = list(found.walk())
    assert [part.get_content_type() for part in parts] == shape
    texts = {
        part.get_content_type(): text_of(part)
        for part in parts
        if part.get_content_maintype() == "text"
    }
    if form.body_alt:
        assert texts["text/plain"] == woven(PLAIN, VALUES)
    if form.body:
        assert texts["text/html"] == woven(HTML, VALUES)
    files = [part for part in parts if part.is_attachment()]
    assert [part.get_payload(decode=True) for part in files] == octets
    assert [part.get_filename() for part in files] == [one.name for one in form.attachments]


@given(html=st.lists(TEXT, min_size=1, max_size=4), plain=st.lists(TEXT, max_size=4),
       values=st.lists(TEXT, min_size=3, max_size=3), octets=st.none() | st.binary())  # fmt: skip
def test_any_text_comes_through(
    html: list[str], plain: list[str], values: list[str], octets: bytes | None
) -> None:
    files = () if octets is None else (attached("a.bin", octets),)
    form = MailForm(body=tuple(html), body_alt=tuple(plain), attachments=files)
    chunks = Blueprint(form, [] if octets is None else [octets]).fill(
        MailMessage(
            form=form,
            subject="s",
            body=tuple(values[: len(html) - 1]),
            body_alt=tuple(values[: max(len(plain) - 1, 0)]),
        ),
        envelope(),
    )
    wire = b"".join(chunks)
    check_lines(wire)
    parts = {part.get_content_type(): part for part in read(chunks).walk()}
    assert text_of(parts["text/html"]) == woven(html, values[: len(html) - 1])
    if plain:
        assert text_of(parts["text/plain"]) == woven(plain, values[: len(plain) - 1])
    if octets is not None:
        assert parts["application/pdf"].get_payload(decode=True) == octets


def check_lines(wire: bytes) -> None:
    """What ``Parcel`` promises: nothing to stuff, nothing that cannot be told from a line end."""
    assert wire.endswith(b"\r\n")
    assert b"\n" not in wire.replace(b"\r\n", b"")
    assert b"\r" not in wire.replace(b"\r\n", b"")
    assert b"\0" not in wire
    for line in wire.split(b"\r\n"):
        assert len(line) <= 998
        assert not line.startswith((b".", b"From "))


def test_a_foreign_text_goes_in_base64() -> None:
    form = MailForm(body_alt=("\u4f60\u597d " * 50, "!"))
    filled = MailMessage(form=form, subject="s", body_alt=("\u0645\u0631\u062d\u0628\u0627",))
    found = read(Blueprint(form, []).fill(filled, envelope()))
    assert found["Content-Transfer-Encoding"] == "base64"
    assert text_of(found) == "\u4f60\u597d " * 50 + "\u0645\u0631\u062d\u0628\u0627!"


FORMS = st.builds(
    MailForm,
    body=st.lists(TEXT, max_size=1).map(tuple),
    body_alt=st.lists(TEXT, min_size=1, max_size=1).map(tuple),
    attachments=st.sampled_from([(), (attached("a  b.pdf", PDF),), (attached("\u4f60", PDF),)]),
)


@settings(max_examples=200)
@given(form=FORMS, subject=LINE, name=LINE)
def test_dkimpy_believes_every_signature(form: MailForm, subject: str, name: str) -> None:
    chunks = Blueprint(form, [PDF][: len(form.attachments)]).fill(
        message(form, subject), envelope(to=MailAddress("z@example.net", name)), SIGNERS
    )
    for index in range(len(SIGNERS)):
        verifier = dkim.DKIM(b"".join(chunks))
        assert verifier.verify(idx=index, dnsfunc=KEYS.txt)
        signed = {field.lower() for field in verifier.signed_headers and verifier.include_headers}
        assert {b"list-unsubscribe", b"list-unsubscribe-post", b"from", b"subject"} <= signed


def test_attachments_are_one_object_for_all() -> None:
    form = MailForm(body=HTML, body_alt=PLAIN, attachments=(attached("a.pdf", PDF),))
    blueprint = Blueprint(form, [PDF])
    first = blueprint.fill(message(form), envelope())
    second = blueprint.fill(message(form, "other"), envelope(), SIGNERS)
    assert first[-1] is second[-1]
    assert len(first[-1]) > len(PDF)


CONTROLS = ["\r\nBcc: x@y.example", "\n", "\r", "\0", "\x7f", "\x85"]


@pytest.mark.parametrize("control", CONTROLS)
def test_no_header_can_be_injected(control: str) -> None:
    form = MailForm(body_alt=PLAIN)
    blueprint = Blueprint(form, [])
    wrong = [
        ("subject", message(form, f"a{control}"), envelope()),
        ("from", message(form), envelope(sender=MailAddress("a@b.example", f"a{control}"))),
        ("from", message(form), envelope(sender=MailAddress(f"a@b.example{control}"))),
        ("to", message(form), envelope(to=MailAddress("a@b.example", f"a{control}"))),
        ("to", message(form), envelope(to=MailAddress(f"a{control}@b.example"))),
        ("reply_to", message(form), envelope(reply_to=f"a@b.example{control}")),
        ("message_id", message(form), envelope(message_id=f"<a@b.example{control}>")),
        ("unsubscribe", message(form, url=f"https://x.example/{control}"), envelope()),
        ("unsubscribe", message(form, url="https://x.example/>, <y"), envelope()),
    ]
    for field, mail, given_envelope in wrong:
        with pytest.raises(InvalidError) as caught:
            blueprint.fill(mail, given_envelope, SIGNERS)
        assert caught.value.field == field


def test_values_that_do_not_fit_the_form_are_a_bug() -> None:
    form = MailForm(body_alt=PLAIN)
    with pytest.raises(ValueError, match="zip"):
        Blueprint(form, []).fill(MailMessage(form=form, subject="", body_alt=("one",)), envelope())


def test_a_form_without_text_is_refused() -> None:
    with pytest.raises(InvalidError) as caught:
        Blueprint(MailForm(), [])
    assert caught.value.field == "body"


def test_only_addresses_that_need_it_ask_for_smtputf8() -> None:
    assert not envelope().smtputf8
    assert not envelope(to=MailAddress("a@b\u00fccher.example")).smtputf8
    assert envelope(to=MailAddress("j\u00f6rg@example.org")).smtputf8
    assert envelope(mail_from="j\u00f6rg@example.org").smtputf8


def test_the_body_hash_is_of_what_is_on_the_wire() -> None:
    class Keeps:
        def sign(self, headers: Sequence[tuple[str, str]], body_hash: bytes, at: int) -> bytes:
            self.told = body_hash, at
            return b"X: y\r\n"

    form = MailForm(body_alt=PLAIN, attachments=(attached("a.pdf", PDF),))
    keeps = Keeps()
    wire = b"".join(Blueprint(form, [PDF]).fill(message(form), envelope(), [keeps]))
    body = wire.partition(b"\r\n\r\n")[2]
    assert keeps.told == (hashlib.sha256(body).digest(), int(AT.timestamp()))
