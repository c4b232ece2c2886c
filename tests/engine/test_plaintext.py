"""Plain text of HTML mails: what a person reads, however the HTML is written."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model import Template
from engine.plaintext import MAX_TEXT, plain_text
from engine.validation import LENGTHS

HOSTILE = (
    "<a ", "<!--", "<![", "</", "</a", "<a b='", '<a b="', "&#", "&", "<script>", "<a b=", "<?",
    "<", "<x y z", "<!doctype [", "<a href=x>", "<li>", "<ul>", "<ol><li>", " <td> ", "<td>a",
    "<pre>\n", "<b =  ", "<script></scrip", "<a href=http://x>y", "<img alt", "<img alt=' ",
)  # fmt: skip
MARKUP = st.lists(
    st.sampled_from(
        [*HOSTILE, "<p>", "</p>", "<br>", "</ul>", "</ol>", "</a>", "</pre>", "x ", "\n", "&amp;",
         "<td>", "</table>", "<table>", "\r", "\0", "\u2028", "&nbsp;", "&#13;", "-->", "'", '"',
         ">"]
    ),
    max_size=40,
)  # fmt: skip


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("Hello", "Hello"),
        ("<p>One</p>\n<p>Two<br>lines</p>", "One\n\nTwo\nlines"),
        ("<div><div>a</div></div><div>b</div>", "a\nb"),
        ("a<br><br><br><br>b", "a\n\nb"),
        ("a   \n\t b<b>c</b>", "a bc"),
        ("5 &euro; &lt; 6 &amp;amp; &#x41;&nbsp;B", "5 € < 6 &amp; A B"),
        ("1 < 2 <3 a<b", "1 < 2 <3 a"),
        ("<html><head><title>T</title><style>p{}</style></head><body>b</body></html>", "b"),
        ("a<script>if (a<b) '</p>'</script>b<!-- <p>c -->d", "abd"),
        ("<STYLE>x</STYLE\n>a<script>never closed", "a"),
        ("<!--[if mso]><p>Outlook</p><![endif]-->a<![endif]>b", "ab"),
        ("<ul><li>one<li>two</ul>after", "- one\n- two\n\nafter"),
        ("<ol><li>one</li><li>two<ul><li>x</li></ul></li></ol>", "1. one\n2. two\n  - x"),
        ("<ul><li><p>one</p></li></ul>", "- one"),
        ("<table><tr><td>a</td><td></td><td>b</td></tr><tr><th>c</th></tr></table>", "a | b\nc"),
        ('see <a href="https://x.example/?a=1&amp;b=2">us</a>.',
         "see us <https://x.example/?a=1&b=2>."),
        ("<a href=https://x.example/>x.example</a>", "x.example"),
        ('<a href="mailto:a@b.de">a@b.de</a> <a href="mailto:c@d.de">me</a>', "a@b.de me <c@d.de>"),
        ('<a href="#top">up</a> <a href="javascript:x()">no</a>', "up no"),
        ('<a href="[unsubscribe:url]">No more</a>', "No more <[unsubscribe:url]>"),
        ('<a href="https://x.example/"><img src="i.png" alt="Shop"></a>',
         "Shop <https://x.example/>"),
        ('<a href="https://a.example/">a<a href="https://b.example/">b',
         "a <https://a.example/>b <https://b.example/>"),
        ('<img alt="A &amp; B">', "A & B"),
        ("<pre>a = 1\n    b</pre>", "a = 1\n    b"),
        ("a<hr>b", "a\n---\nb"),
        ('<p title="a > b">x</p>', "x"),
        ("pre\u00adview\u200b\ufeff", "preview"),
        ("Dear [contact:first_name], <b>[contact:custom1]</b>",
         "Dear [contact:first_name], [contact:custom1]"),
        ("", ""),
        ("<p></p><div> </div>", ""),
        # Python reads no number of more than 4,300 digits.
        ("a&#" + "9" * 4301 + ";b", "a\ufffdb"),
        ("a&#" + "0" * 4301 + "66b", "aBb"),
        ("a&#x" + "0" * 4301 + "42;b", "aBb"),
        ("a&#" + "0" * 4301 + ";b", "a\ufffdb"),
        ('<a href="https://x.example/&#' + "1" * 4301 + '">us</a>',
         "us <https://x.example/\ufffd>"),
        ('<img alt="&#' + "0" * 4301 + '66">', "B"),
    ],
)  # fmt: skip
def test_what_is_read(html: str, text: str) -> None:
    assert plain_text(html) == text


@given(MARKUP)
def test_lines_of_whatever_is_written(parts: list[str]) -> None:
    text = plain_text("".join(parts))
    assert "\n\n\n" not in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]|[ \xa0]$", text, re.MULTILINE)
    assert text == text.strip("\n")


@pytest.mark.parametrize("unit", HOSTILE)
def test_the_longest_body_there_may_be_is_read_to_its_end(unit: str) -> None:
    # What is read again and again here takes minutes: the time limit of a test sees that.
    length = LENGTHS[Template]["body"]
    assert len(plain_text((unit * length)[:length])) <= MAX_TEXT


def test_what_is_made_is_bounded() -> None:
    assert len(plain_text("x" * (MAX_TEXT + 9))) == MAX_TEXT
