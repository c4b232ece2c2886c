"""Mail that means harm, made here: each with what we must take of it.

messaging.md 20-21 and what other readers of mail fell over; nothing is downloaded.
"""

from __future__ import annotations

import base64
import io
import random
import zipfile
from collections.abc import Iterator
from typing import NamedTuple


class Hostile(NamedTuple):
    """``subject``, ``text``, ``files`` (names) and ``cut`` as they must be read; None: anything."""

    name: str
    raw: bytes
    subject: str | None = None
    text: str | None = None
    files: tuple[str, ...] | None = None
    cut: tuple[str, ...] = ()
    source: str | None = None
    html: str | None = None


def mail(
    *headers: bytes, body: bytes = b"hello\r\n", kind: bytes = b"text/plain; charset=utf-8"
) -> bytes:
    lines = [b"MIME-Version: 1.0", b"Content-Type: " + kind, *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def mixed(*parts: bytes, boundary: bytes = b"b", kind: bytes = b"mixed") -> bytes:
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return mail(
        b"Subject: parts", kind=b"multipart/" + kind + b'; boundary="' + boundary + b'"',
        body=body + b"--" + boundary + b"--\r\n",
    )  # fmt: skip


def part(kind: bytes, body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"Content-Type: " + kind, *headers]) + b"\r\n\r\n" + body


def file_part(disposition: bytes, body: bytes = b"QUJD", kind: bytes = b"image/png") -> bytes:
    return part(
        kind, body, b"Content-Disposition: " + disposition, b"Content-Transfer-Encoding: base64"
    )


TEXT = part(b"text/plain", b"hello")


def _headers() -> Iterator[Hostile]:
    yield Hostile("message-id <", mail(b"Message-ID: <", b"Subject: x"), "x", "hello\n")
    yield Hostile("from ( 2000", mail(b"From: " + b"(" * 2000 + b"a@b.example"), source="")
    yield Hostile("from comments", mail(b"From: (a (b) c@d.example) e@f.example (g)"),
                  source="e@f.example")  # fmt: skip
    yield Hostile("from quoted address", mail(b'From: "a@b.example <c@d.example>" <e@f.example>'),
                  source="e@f.example")  # fmt: skip
    yield Hostile("from encoded crlf", mail(b"From: =?utf-8?q?a=0D=0ABcc:_x@y?= <a@b.example>"),
                  source="a@b.example")  # fmt: skip
    yield Hostile("from address in word", mail(b"From: =?utf-8?q?a=40b.example?="), source="")
    yield Hostile("from group", mail(b"From: friends: a@b.example, c@d.example;"),
                  source="a@b.example")  # fmt: skip
    yield Hostile("from NUL", mail(b"From: a\0b@c.example"), source="")
    yield Hostile("10k addresses", mail(b"To: " + b", ".join(
        b"a%d@b.example" % n for n in range(10_000)), b"Subject: x"), cut=("header",))  # fmt: skip
    yield Hostile("lone CR", mail(b"Subject: a\rBcc: b@c.example"), "a Bcc: b@c.example")
    yield Hostile("encoded CRLF", mail(b"Subject: =?utf-8?q?a=0D=0ABcc:_b?="), "a Bcc: b")
    yield Hostile("NUL in subject", mail(b"Subject: a\0b"), "a b")
    yield Hostile("direction marks", mail("Subject: a\u202eb\u2066c\u2028d".encode()), "a b c d")
    yield Hostile("100 kB of words", mail(b"Subject: " + b" ".join(
        [b"=?utf-8?q?" + b"a" * 50 + b"?="] * 1700)), cut=("header",))  # fmt: skip
    yield Hostile("unended words", mail(b"Subject: " + b"=?utf-8?q?" * 6000))
    cut = b"=?utf-8?b?w7w=?= =?utf-8?q?=C3?= =?utf-8?q?=BC?="
    yield Hostile("word cut in a character", mail(b"Subject: " + cut), "üü")
    yield Hostile("unknown charset", mail(b"Subject: =?x-klingon?q?a=FC?="), "aü")
    yield Hostile("no text charset", mail(b"Subject: =?zlib?b?eJwLAAAA?="))
    yield Hostile("quadratic charset", mail(b"Subject: =?punycode?q?" + b"a-" * 4000 + b"?="))
    yield Hostile("utf-7 halves", mail(b"Subject: =?utf-7?q?+2AA-x?="))
    yield Hostile("raw latin-1", mail(b"Subject: Gr\xfc\xdfe"), "Grüße")
    yield Hostile("raw utf-8", mail("Subject: Grüße".encode()), "Grüße")
    yield Hostile("20k header lines", mail(*[b"X-%d: y" % n for n in range(20_000)]),
                  cut=("header",))  # fmt: skip
    yield Hostile("folded 10k", mail(b"Subject: a" + b"\r\n b" * 900), "a" + " b" * 499 + " ")
    yield Hostile("no colon", b"no header at all\r\n" * 50)
    yield Hostile("nothing", b"")
    yield Hostile("blank line", b"\r\n")
    yield Hostile("only header", b"Subject: x", "x", "")
    yield Hostile("two subjects", mail(b"Subject: a", b"Subject: b"), "a")
    yield Hostile("mbox line", b"From a@b Sat Nov 21 2026\n" + mail(b"Subject: x"), "x")
    yield Hostile("blank before colon", mail(b"Subject : x"), "x")


def _nested(depth: int, kind: bytes) -> bytes:
    inner = TEXT
    for number in range(depth):
        boundary = b"n%d" % number
        body = b"--" + boundary + b"\r\n" + inner + b"\r\n--" + boundary + b"--\r\n"
        inner = part(kind + b'; boundary="' + boundary + b'"', body)
    return b"Subject: deep\r\n" + inner


def _prefixes(lines: int) -> bytes:
    """Every line begins like the delimiter of every level, and is none."""
    names = [b"b" * count for count in range(1, 20)]
    heads = [b"Content-Type: multipart/x; boundary=%s\r\n\r\n--%s\r\n" % (b, b) for b in names]
    return b"Subject: x\r\n" + b"".join(heads) + b"\n--" + (b"b" * 19 + b"x\n--") * lines


def _rfc822(depth: int) -> bytes:
    inner = b"Subject: inner\r\n\r\nx"
    for _ in range(depth):
        inner = b"Content-Type: message/rfc822\r\n\r\n" + inner
    return inner


def _structure() -> Iterator[Hostile]:
    yield Hostile("rfc822 x 50", mixed(TEXT, _rfc822(50)), "parts", "hello", ("message.eml",))
    yield Hostile("multipart x 19", _nested(19, b"multipart/mixed"), "deep", "hello", ())
    yield Hostile("multipart x 2000", _nested(2000, b"multipart/mixed"), "deep", "",
                  ("attachment_1.bin",), ("depth",))  # fmt: skip
    yield Hostile("20k parts", mixed(*[TEXT] * 20_000), "parts", "hello", cut=("parts", "files"))
    yield Hostile("20k empty parts", mixed(*[b""] * 20_000), "parts", cut=("parts",))
    yield Hostile("never ended", mixed(TEXT)[:-7], "parts", "hello\n")
    yield Hostile("no boundary", mail(kind=b"multipart/mixed"), files=("attachment_1.bin",))
    yield Hostile("long boundary", mixed(TEXT, boundary=b"x" * 5000))
    yield Hostile("boundary of a prefix", mixed(part(b"text/plain", b"a\r\n--bb\r\nc")),
                  text="a\n--bb\nc")  # fmt: skip
    yield Hostile("delimiters everywhere", mail(
        kind=b"multipart/mixed; boundary=b", body=b"\r\n--bx" * 200_000),
        cut=("parts",))  # fmt: skip
    yield Hostile("delimiters of delimiters", _prefixes(40_000), cut=("parts",))
    yield Hostile("itself within", mixed(part(b"multipart/mixed; boundary=b", b"--b\r\n\r\nx")))
    yield Hostile("parameters", mail(kind=b"text/plain" + b";a*=b;a*0*=c" * 3000))
    yield Hostile("open quote", mail(kind=b'text/plain; charset="' + b";\\" * 3000), text="hello\n")
    yield Hostile("sections", mail(kind=b"text/plain; " + b"; ".join(
        b"x*%d=y" % n for n in range(5000))), text="hello\n")  # fmt: skip
    yield Hostile("alternatives", mixed(
        TEXT, part(b"text/html", b"<b>one</b>"), part(b"text/html", b"<b>two</b>"),
        kind=b"alternative"), "parts", "hello", ("text.html",), html="<b>one</b>")  # fmt: skip


def _files() -> Iterator[Hostile]:
    names = [
        (b'attachment; filename="../../etc/passwd"', "passwd"),
        (b'attachment; filename="..\\\\..\\\\boot.ini"', "boot.ini"),
        (b'attachment; filename="/etc/passwd"', "passwd"),
        (b'attachment; filename="C:evil.txt"', "Cevil.txt"),
        (b'attachment; filename=".."', "attachment_1.bin"),
        (b'attachment; filename=""', "attachment_1.bin"),
        (b'attachment; filename="a\0b"', "a b"),
        ('attachment; filename="a\u202efdp.exe"'.encode(), "a fdp.exe"),
        (b"attachment; filename*=utf-8''..%2F..%2Fetc%2Fpasswd", "passwd"),
        (b"attachment; filename*=utf-8''a%0D%0Ab", "a b"),
        (b"attachment; filename*0*=utf-8''%C3; filename*1*=%BC.pdf", "ü.pdf"),
        (b"attachment; filename*=x-none''%FC", "ü"),
        (b'attachment; filename="=?utf-8?q?=2E=2E=2Fx?="', "x"),
        (b'attachment; filename="' + b"a" * 3000 + b'.pdf"', "a" * 124 + ".pdf"),
    ]  # fmt: skip
    for disposition, name in names:
        yield Hostile(
            f"name {disposition[:60]!r}", mixed(TEXT, file_part(disposition)), files=(name,)
        )
    attached = b"attachment; filename=a"
    yield Hostile("11 files", mixed(TEXT, *[file_part(attached)] * 11), "parts", "hello",
                  ("a",) * 10, ("files",))  # fmt: skip
    yield Hostile("zip bomb", mixed(TEXT, file_part(attached, base64.encodebytes(_bomb()))),
                  files=("a",))  # fmt: skip
    yield Hostile("TNEF", mixed(TEXT, part(b"application/ms-tnef; name=winmail.dat", b'x\x9f>"')),
                  files=("winmail.dat",))  # fmt: skip
    yield Hostile(
        "broken base64", mixed(TEXT, file_part(attached, b"QU!JD=Q\0U\xffJ")), files=("a",)
    )
    yield Hostile("uuencode", mail(body=b"begin 644 ../x\r\n#86)C\r\n`\r\nend\r\n"),
                  text="begin 644 ../x\n#86)C\n`\nend\n")  # fmt: skip


def _bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10_000_000))
    return file.getvalue()


def _texts() -> Iterator[Hostile]:
    html = b"text/html; charset=utf-8"
    yield Hostile("script", mail(kind=html, body=b"<p onclick=x>a<script>b</script>"
                  b"<a href='javascript:x'>c</a><iframe src=d></iframe><style>e</style>"),
                  html='<p>a<a rel="noopener noreferrer">c</a></p>')  # fmt: skip
    yield Hostile("100k div", mail(kind=html, body=b"<div>" * 100_000), cut=("html",))
    yield Hostile("growing html", mail(kind=html, body=b"&<" * 400_000), cut=("html",))
    yield Hostile("open comment", mail(kind=html, body=b"<!--" * 50_000), html="")
    yield Hostile("1 MB line", mail(body=b"x" * 1_000_001), cut=("text",))
    yield Hostile("controls", mail(body=b"a\0b\x1b[31mc\x7f\td\r"), text="ab[31mc\td\n")
    yield Hostile("smuggling", mail(body=b"a\n.\nMAIL FROM:<x>\r\n.\nb\n.\r\nc"),
                  text="a\n.\nMAIL FROM:<x>\n.\nb\n.\nc")  # fmt: skip
    yield Hostile("broken utf-8", mail(body=b"a\xff\xc3"), text="a\ufffd\ufffd")
    yield Hostile("broken qp", mail(b"Content-Transfer-Encoding: quoted-printable",
                  body=b"a=ZZ=3D=\r\nb=4"))  # fmt: skip
    yield Hostile("charset of paths", mail(kind=b"text/plain; charset=../../x"), text="hello\n")
    yield Hostile("charset NUL", mail(kind=b'text/plain; charset="a\0b"'), text="hello\n")
    yield Hostile("unknown encoding", mail(b"Content-Transfer-Encoding: x-rot"), text="hello\n")
    flowed = b"text/plain; format=flowed; delsp=yes"
    yield Hostile("flowed", mail(kind=flowed, body=b"> a \r\n> b\r\n>> c \r\nd\r\n-- \r\ne \r\n"),
                  text="> ab\n>> c\nd\n-- \ne")  # fmt: skip
    yield Hostile("200k flowed", mail(kind=flowed, body=b"a \r\n" * 200_000), text="a" * 200_000)


CORPUS: tuple[Hostile, ...] = (*_headers(), *_structure(), *_files(), *_texts())


def mutations(count: int, seed: int = 5) -> Iterator[bytes]:
    """Small ones of the corpus with octets changed, cut, doubled and mixed; the same every run."""
    dice = random.Random(seed)
    seeds = [one.raw for one in CORPUS if len(one.raw) < 3_000]
    for _ in range(count):
        raw = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 8)):
            _mutate(raw, dice, seeds)
        yield bytes(raw)


_BITS = (
    b"\r", b"\n", b"\r\n", b"\0", b"--b", b"--b--", b"=?", b"?=", b'"', b";", b"*0*=", b"''%", b":",
    b"<", b">", b"(", b"\xff", b"\xc3", b"=", b" ", b"Content-Type: multipart/x; boundary=b\r\n",
)  # fmt: skip


def _mutate(raw: bytearray, dice: random.Random, seeds: list[bytes]) -> None:
    at = dice.randint(0, len(raw))
    end = min(len(raw), at + dice.randint(0, 40))
    kind = dice.randrange(5)
    if kind == 0:
        del raw[at:end]
    elif kind == 1:
        raw[at:at] = dice.choice(_BITS)
    elif kind == 2:
        raw[at:at] = raw[at:end] * dice.randint(1, 4)
    elif kind == 3:
        raw[at:end] = dice.randbytes(end - at)
    else:
        other = dice.choice(seeds)
        start = dice.randint(0, len(other))
        raw[at:at] = other[start : start + 200]
