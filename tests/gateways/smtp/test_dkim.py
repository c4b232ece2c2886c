"""DKIM signatures, judged by dkimpy: an independent verifier with its own RSA."""

from __future__ import annotations

import hashlib
import re
import string
import time
from collections.abc import Sequence

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from dkim.canonicalization import Relaxed
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidError
from engine.mail import MailAddress
from gateways.smtp.dkim import OVERSIGNED, SIGNED, VALID_S, Signer, canonical_header, signers_for
from gateways.smtp.dkim_keys import private_key, selector_and_domain
from gateways.smtp.headers import address_header, header
from gateways.smtp.settings import DkimKey
from tests.support.mail.dkim_keys import Keys

KEYS = Keys("example.org")
KINDS = KEYS.kinds
SIGNERS = {kind: Signer(f"{kind}._domainkey.example.org", KEYS.pem(kind)) for kind in KINDS}
AT = int(time.time()) - 60  # dkimpy compares t= and x= with the clock
Headers = list[tuple[str, str]]


def verified(mail: bytes, index: int = 0) -> bool:
    try:
        return bool(dkim.DKIM(mail).verify(idx=index, dnsfunc=KEYS.txt))
    except dkim.DKIMException:  # it says more than no
        return False


def fields(lines: Sequence[bytes]) -> Headers:
    """Name and value of each header as it stands, folds and all."""
    pairs = (line.decode().partition(":") for line in lines)
    return [(name, value.removesuffix("\r\n")) for name, _, value in pairs]


def signed(signer: Signer, headers: Headers, body: bytes) -> bytes:
    digest = hashlib.sha256(Relaxed.canonicalize_body(body)).digest()
    wire = "".join(f"{name}:{value}\r\n" for name, value in headers).encode()
    return signer.sign(headers, digest, AT) + wire + b"\r\n" + body


# --- mails as we write them, and as strangely as headers may be written
BLANKS = st.sampled_from([" ", "  ", "\t", "\r\n ", "\r\n\t ", " \r\n  "])
WORDS = st.text(string.ascii_letters + string.digits + "=?_<>@.,;:\"'", min_size=1, max_size=12)
FOLDED = st.lists(st.tuples(BLANKS, WORDS), max_size=8).map(
    lambda pairs: "".join(blank + word for blank, word in pairs)
)
SUBJECTS = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=120
).map(lambda text: fields([header("Subject", text)])[0])  # fmt: skip
NAMES = st.sampled_from(["", "Z\u00f6e M\u00fcller", "\u4e2d\u6587", "O'Brien, Pat", '"'])
SENDERS = NAMES.map(
    lambda name: fields([address_header("From", MailAddress("a@example.org", name))])[0]
)
OTHERS = st.tuples(st.sampled_from([name for name in SIGNED if name not in {"From", "Subject"}]),
                   FOLDED)  # fmt: skip
UNSIGNED = st.tuples(st.sampled_from(["X-One", "Received", "Comments"]), FOLDED)
HEADERS = st.tuples(
    SENDERS, SUBJECTS, st.lists(OTHERS | UNSIGNED, max_size=8, unique_by=lambda pair: pair[0])
).map(lambda parts: [parts[0], parts[1], *parts[2]])
LINES = st.text(string.printable.replace("\r", "").replace("\n", ""), max_size=40)
BODIES = st.lists(LINES, max_size=8).map(lambda lines: "\r\n".join([*lines, ""]).encode())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=1_000)
@given(headers=HEADERS, body=BODIES)
def test_dkimpy_believes_it(kind: str, headers: Headers, body: bytes) -> None:
    assert verified(signed(SIGNERS[kind], headers, body))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300)
@given(headers=HEADERS, body=BODIES, data=st.data())
def test_one_byte_changed_is_found(
    kind: str, headers: Headers, body: bytes, data: st.DataObject
) -> None:
    mail = signed(SIGNERS[kind], headers, body)
    places = _signed_places(mail, len(body))
    if not places:
        return
    at = data.draw(st.sampled_from(places))
    changed = mail[:at] + (b"x" if mail[at : at + 1] != b"x" else b"y") + mail[at + 1 :]
    assert not verified(changed)


def _signed_places(mail: bytes, body_length: int) -> list[int]:
    """Where visible characters stand of signed headers' values and of the body."""
    end = len(mail) - body_length
    places = [at for at in range(end, len(mail)) if 0x20 < mail[at] < 0x7F]
    for name in SIGNED:
        for field in re.finditer(
            rb"^%s:(?:.|\r\n[ \t])*" % name.encode(), mail[:end], re.MULTILINE
        ):
            start = field.start() + len(name) + 1
            places += [at for at in range(start, field.end()) if 0x20 < mail[at] < 0x7F]
    return places


PLAIN: Headers = [("From", " a@example.org"), ("To", " b@example.net"), ("Subject", " Hello")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_from_breaks_it(kind: str) -> None:
    mail = signed(SIGNERS[kind], PLAIN, b"Hello\r\n")
    assert verified(mail)
    assert not verified(b"From: ceo@example.org\r\n" + mail)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_body_is_signed(kind: str) -> None:
    assert verified(signed(SIGNERS[kind], PLAIN, b""))


def test_both_algorithms_sign_one_mail() -> None:
    mail = signed(SIGNERS["rsa"], PLAIN, b"Hello\r\n")
    digest = hashlib.sha256(b"Hello\r\n").digest()
    both = SIGNERS["ed25519"].sign(PLAIN, digest, AT) + mail
    assert verified(both, 0)
    assert verified(both, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_has_its_tags_in_short_lines(kind: str) -> None:
    headers = [(name, " x") for name in SIGNED]
    field = SIGNERS[kind].sign(headers, hashlib.sha256(b"").digest(), AT)
    assert field.endswith(b"\r\n")
    lines = field.decode("ascii").removesuffix("\r\n").split("\r\n")
    assert all(len(line) <= 78 for line in lines)
    assert all(line.startswith(" ") for line in lines[1:])
    pairs = (tag.partition("=") for tag in "".join(lines).partition(":")[2].split(";"))
    tags = {name.strip(): value for name, _, value in pairs}
    assert list(tags) == ["v", "a", "c", "d", "s", "h", "t", "x", "bh", "b"]
    assert (tags["v"], tags["c"]) == ("1", "relaxed/relaxed")
    assert (tags["a"], tags["d"], tags["s"]) == (f"{kind}-sha256", "example.org", kind)
    assert (int(tags["t"]), int(tags["x"])) == (AT, AT + VALID_S)
    assert [name.strip() for name in tags["h"].split(":")] == [*SIGNED, OVERSIGNED]


def test_headers_that_are_not_there_are_not_named() -> None:
    field = SIGNERS["ed25519"].sign([("From", " a@b.org"), ("X-One", " x")], b"", AT)
    assert b"h=From:From;" in field


def test_other_blanks_than_of_ascii_are_text() -> None:
    assert canonical_header("To", " a\u00a0b \u3000\r\n c") == "to:a\u00a0b \u3000 c\r\n".encode()


# --- keys
def settings_of(*names: str) -> dict[str, DkimKey]:
    return {name: DkimKey(private_key=KEYS.pem("ed25519")) for name in names}


@pytest.mark.parametrize(
    ("domain", "selectors"),
    [
        ("example.org", ["a", "b"]),
        ("EXAMPLE.org", ["a", "b"]),
        ("news.example.org", ["c"]),
        ("deep.news.example.org", ["c"]),
        ("other.example.org", ["a", "b"]),
        ("badexample.org", []),
        ("example.org.evil.example", []),
        ("org", []),
    ],
)
def test_keys_of_the_nearest_domain_sign(domain: str, selectors: list[str]) -> None:
    keys = settings_of(
        "a._domainkey.example.org", "b._domainkey.example.org", "c._domainkey.news.example.org"
    )
    assert [signer.selector for signer in signers_for(keys, domain)] == selectors


def test_a_key_without_its_text_is_no_reason_to_go_unsigned() -> None:
    with pytest.raises(InvalidError, match=r"s1\._domainkey\.example\.org"):
        signers_for({"s1._domainkey.example.org": DkimKey()}, "example.org")


@pytest.mark.parametrize(
    ("name", "selector", "domain"),
    [
        ("s1._domainkey.example.org", "s1", "example.org"),
        ("S1._DomainKey.Example.ORG.", "s1", "example.org"),
        ("eu.s1._domainkey.b\u00fccher.example", "eu.s1", "xn--bcher-kva.example"),
    ],
)
def test_names_of_keys(name: str, selector: str, domain: str) -> None:
    assert selector_and_domain(name) == (selector, domain)


def pem_of(
    key: rsa.RSAPrivateKey,
    form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8,
) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, form, serialization.NoEncryption()
    ).decode()


def test_a_key_of_pkcs1_is_taken() -> None:
    key = rsa.generate_private_key(65_537, 2048)
    text = pem_of(key, serialization.PrivateFormat.TraditionalOpenSSL)
    assert isinstance(private_key("s1._domainkey.example.org", text), rsa.RSAPrivateKey)


@pytest.mark.parametrize("spoilt", ["e", "d dmp1", "d dmq1", "d iqmp"])
def test_a_key_that_signs_what_nobody_believes_is_refused(spoilt: str) -> None:
    # One wrong number of those that only save time is made good by OpenSSL: the key signs.
    good = rsa.generate_private_key(65_537, 2048).private_numbers()
    off = dict.fromkeys(spoilt.split(), 2)
    public = good.public_numbers
    numbers = rsa.RSAPrivateNumbers(
        **{
            name: getattr(good, name) + off.get(name, 0)
            for name in ("p", "q", "d", "dmp1", "dmq1", "iqmp")
        },
        public_numbers=rsa.RSAPublicNumbers(
            e=public.e + off.get("e", 0), n=public.n + off.get("n", 0)
        ),
    )
    text = pem_of(numbers.private_key(unsafe_skip_rsa_key_validation=True))
    with pytest.raises(InvalidError, match="damaged"):
        private_key("s1._domainkey.example.org", text)
