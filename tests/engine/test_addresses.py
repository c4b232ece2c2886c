"""What an e-mail address is, and what its domain is called in DNS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.addresses import MAX_ADDRESS, domain_ascii, domain_of, needs_smtputf8, plain
from engine.errors import InvalidError

LONG_DOMAIN = ".".join(["d" * 61] * 4)


@pytest.mark.parametrize(
    "address",
    [
        "a@b.de", "a@b", "A.B+tag@Example.COM", "o'hara@example.org", "a@xn--mnchen-3ya.de",
        '"a@b"@example.org', '"a\\"b"@example.org', "zoë@example.org", "a@münchen.de",
        "用户@例子.广告", f"{'x' * 64}@example.org", "a@1.2.3.4.example", "a-b_c=d@e-f.gh",
    ],
)  # fmt: skip
def test_what_is_one(address: str) -> None:
    assert plain(address) == address
    assert plain(f"\t {address} ") == address


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "@", "a@", "@b.de", "a b@c.de", '"a b"@c.de', "a@b c.de", "a@b@c.de", "<a@b.de>",
        "Ada <a@b.de>", "a@b.de, c@d.de", "a@b.de;c@d.de", "a,b@c.de", "a:b@c.de", ".a@b.de",
        "a.@b.de", "a..b@c.de", "a@.de", "a@b..de", "a@b.de.", "a@-b.de", "a@b-.de", "a@b_c.de",
        "a@[127.0.0.1]", "a@127.0.0.1", "a@1", "@host:a@b.de", "a(c)@b.de", '"a@b.de', '"a"b@c.de',
        "a@b.de\r\nBcc: x@y.de", "a\r\n@b.de", "a@b.de\n", "a\0@b.de", "a@b\0.de", "a\x7f@b.de",
        "a\x85@b.de", "a\u2028@b.de", "a\u202e@b.de", "a\u00a0@b.de", "a@b\u200b.de", "\ud800@b.de",
        "a@\ud800.de", f"{'x' * 65}@b.de", f"{'ü' * 33}@b.de", f"a@{'x' * 64}.de",
        f"a@{LONG_DOMAIN}.{'d' * 8}", f"{'x' * 64}@{LONG_DOMAIN}", "a@\u0661.de", "a@☃.de",
        f"a@{'ü' * 70}.de", f"a@{'ü.' * 120}de", '"\\\r\n"@b.de', "a@de--x\u0301.",
    ],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    assert plain(text) is None


@given(st.text(st.sampled_from('ab@."\\ <>,;:\r\n\0é\u2028-_1[]()'), max_size=20))
def test_nothing_that_ends_a_line_or_an_address_is_in_one(text: str) -> None:
    address = plain(text)
    if address is None:
        return
    assert not set(address) & set("\r\n\0 <>,;:\u2028")
    assert len(address.encode()) <= MAX_ADDRESS
    assert domain_ascii(domain_of(address)).isascii()


@pytest.mark.parametrize(
    ("domain", "ascii_"),
    [
        ("Example.COM", "example.com"), ("MÜNCHEN.de", "xn--mnchen-3ya.de"),
        ("straße.de", "xn--strae-oqa.de"), ("例子。测试", "xn--fsqu00a.xn--0zwm56d"),
        ("xn--mnchen-3ya.de", "xn--mnchen-3ya.de"),
    ],
)  # fmt: skip
def test_domains_in_dns(domain: str, ascii_: str) -> None:
    assert domain_ascii(domain) == ascii_


@pytest.mark.parametrize("domain", ["", "a_b.de", "-a.de", "x" * 64, "10.0.0.1", "a..b", "ü" * 300])
def test_no_domain(domain: str) -> None:
    with pytest.raises(InvalidError):
        domain_ascii(domain)


def test_only_local_parts_need_smtputf8() -> None:
    assert needs_smtputf8("zoë@example.org")
    assert not needs_smtputf8("zoe@münchen.de")
