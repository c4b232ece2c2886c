"""The text of an HTML mail for who reads no HTML. Pure, in one pass over whatever is written.

Not a browser: tags are taken as they come. The parser of the standard library (3.11) takes minutes
for a megabyte of ``<a `` and gives up on ``<![``; here nothing is looked at twice by the same rule.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

MAX_TEXT = 1_000_000
"""Characters of the result; what would be beyond is cut."""

_ATTRIBUTES = r"""(?:[^>"'=]++|=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))?+|["'])*+"""
# What is opened and never closed goes on to the end, as in a browser: so every rule that begins to
# match does match, and nothing is read again.
_PIECE = re.compile(
    rf"""(?P<text>(?:[^<]++|<(?![A-Za-z!?/]))++)
    |<!--(?s:.*?)(?:-->|\Z)
    |<(?P<end>/?)(?P<tag>[A-Za-z][A-Za-z0-9:-]*+)(?P<attributes>{_ATTRIBUTES})(?:>|\Z)
    |<[!?/][^>]*+(?:>|\Z)""",
    re.VERBOSE,
)
_ATTRIBUTE = re.compile(
    r"""(?<![^\s"'/])([A-Za-z-]++)\s*+=\s*+(?:"([^"]*+)|'([^']*+)|([^\s"'>]++))"""
)
_HIDDEN = {
    tag: re.compile(rf"</{tag}(?![A-Za-z0-9:-])", re.IGNORECASE)
    for tag in ("script", "style", "title", "template", "noscript")
}
"""Elements nobody reads, and where they end."""

_LONG_NUMBER = re.compile("&#([0-9]{8,}+);?")
_BLANKS = re.compile(r"[ \t\n\r\f]+")
_UNSHOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u200b\u2028\u2029\ufeff]+")
_LINK = re.compile(r"(?:https?://|tel:|mailto:|\[\w+:)", re.IGNORECASE | re.ASCII)
_SHOWN_WITHOUT = re.compile(r"(?:mailto:|tel:)", re.IGNORECASE)
_MAX_DEPTH = 8  # of lists that are indented


def plain_text(text: str) -> str:
    """Readable text of HTML, its tokens as they are; a link is ``text <url>``.

    At most one blank line between two lines, no white space at the end of one.
    """
    reader, at = _Reader(), 0
    while found := _PIECE.match(text, at):
        at = found.end()
        tag = (found["tag"] or "").lower()
        if found["text"]:
            reader.text(found["text"])
        elif tag in _HIDDEN and not found["end"]:
            closing = _HIDDEN[tag].search(text, at)
            at = closing.start() if closing else len(text)
        elif tag:
            reader.tag(tag, found["attributes"], ends=bool(found["end"]))
    return reader.result()[:MAX_TEXT]


class _Lines:
    """Lines in the making. Breaks asked for where a line is empty already cost nothing."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._line: list[str] = []
        self._empty = True
        self._lead = ""  # of the line: indent and mark of a list's item
        self._glue = ""  # goes before the next word, if one follows on this line
        self.indent = ""

    def add(self, text: str) -> None:
        words = bool(text.strip(" "))
        if self._glue and words:
            self._line.append(self._glue)
            self._glue = ""
        self._empty = self._empty and not words
        self._line.append(text)

    def cell(self) -> None:
        """What follows is another cell of the same row."""
        if not self._empty:
            self._glue = " | "

    def item(self, mark: str) -> None:
        self.newline()
        self._lead = f"{self.indent}{mark} "

    def newline(self) -> None:
        """What follows is at the start of a line."""
        if self._empty:
            self._line.clear()
        else:
            self.hard()

    def hard(self) -> None:
        """End the line, empty or not."""
        words = re.sub(r" {2,}", " ", "".join(self._line)).strip(" ")
        self._line.clear()
        self._empty, self._glue = True, ""
        if words.strip("\xa0 "):
            self._lines.append((self._lead or self.indent) + words)
            self._lead = ""
        elif self._lines and self._lines[-1]:
            self._lines.append("")

    def paragraph(self) -> None:
        """What follows is at the start of a line with a blank one before it."""
        self.newline()
        if not self._lead:
            self.hard()

    def result(self) -> str:
        self.newline()
        while self._lines and not self._lines[-1]:
            self._lines.pop()
        # Blanks that are not to be broken kept their place until here.
        return "\n".join(line.replace("\xa0", " ").rstrip() for line in self._lines)


class _Reader:
    """What tags do to the text between them."""

    def __init__(self) -> None:
        self._lines = _Lines()
        self._lists: list[int] = []  # number of the last item; -1 where they have none
        self._link = ""
        self._label: list[str] = []
        self._preformatted = 0
        self._open: dict[str, Callable[[str], None]] = {
            "a": self._a,
            "br": lambda _: self._lines.hard(),
            "hr": self._hr,
            "img": self._img,
            "li": self._li,
            "ol": lambda _: self._list(0),
            "ul": lambda _: self._list(-1),
            "pre": self._pre,
            "td": lambda _: self._lines.cell(),
            "th": lambda _: self._lines.cell(),
        }
        self._close: dict[str, Callable[[], None]] = {
            "a": self._end_link,
            "ol": self._end_list,
            "ul": self._end_list,
            "pre": self._end_pre,
        }

    def text(self, raw: str) -> None:
        shown = _UNSHOWN.sub("", _unescaped(raw).replace("\r\n", "\n").replace("\r", "\n"))
        if self._preformatted:
            first, *rest = shown.replace(" ", "\xa0").replace("\t", "\xa0" * 4).split("\n")
            self._say(first)
            for line in rest:
                self._lines.hard()
                self._say(line)
            return
        self._say(_BLANKS.sub(" ", shown))

    def tag(self, name: str, attributes: str, *, ends: bool) -> None:
        if ends:
            self._close.get(name, _nothing)()
        elif name in self._open:
            self._open[name](attributes)
        if name in _PARAGRAPHS:
            self._lines.paragraph()
        elif name in _BLOCKS:
            self._lines.newline()

    def result(self) -> str:
        self._end_link()
        return self._lines.result()

    def _say(self, text: str) -> None:
        self._lines.add(text)
        if self._link:
            self._label.append(text)

    # --- links and pictures -------------------------------------------------------------------
    def _a(self, attributes: str) -> None:
        self._end_link()
        url = _UNSHOWN.sub("", _attribute(attributes, "href"))
        url = _BLANKS.sub("", url)
        self._link = _SHOWN_WITHOUT.sub("", url, count=1) if _LINK.match(url) else ""

    def _end_link(self) -> None:
        url, label = self._link, "".join(self._label).strip()
        self._link = ""
        self._label.clear()
        if url and label.rstrip("/") not in {url.rstrip("/"), url.partition("://")[2].rstrip("/")}:
            self._lines.add(f" <{url}>")

    def _img(self, attributes: str) -> None:
        self.text(_attribute(attributes, "alt", escaped=True))

    # --- lists ----------------------------------------------------------------------------------
    def _list(self, number: int) -> None:
        self._lines.newline() if self._lists else self._lines.paragraph()
        self._lists.append(number)
        self._indent()

    def _end_list(self) -> None:
        self._lines.newline()
        if self._lists:
            self._lists.pop()
        self._indent()
        if not self._lists:
            self._lines.paragraph()

    def _indent(self) -> None:
        self._lines.indent = "  " * (min(len(self._lists), _MAX_DEPTH) - 1)

    def _li(self, _: str) -> None:
        if not self._lists or self._lists[-1] < 0:
            self._lines.item("-")
            return
        self._lists[-1] += 1
        self._lines.item(f"{self._lists[-1]}.")

    # --- other blocks ---------------------------------------------------------------------------
    def _hr(self, _: str) -> None:
        self._lines.newline()
        self._lines.add("---")

    def _pre(self, _: str) -> None:
        self._lines.paragraph()
        self._preformatted += 1

    def _end_pre(self) -> None:
        self._preformatted = max(self._preformatted - 1, 0)


_PARAGRAPHS = frozenset(
    {"blockquote", "dl", "fieldset", "h1", "h2", "h3", "h4", "h5", "h6", "p", "pre", "table"}
)
_BLOCKS = frozenset(
    {
        "address", "article", "aside", "body", "center", "dd", "div", "dt", "figcaption", "figure",
        "footer", "form", "header", "hr", "html", "main", "nav", "section", "tbody", "tfoot",
        "thead", "tr",
    }
)  # fmt: skip


def _nothing() -> None:
    """Most ends of elements say nothing."""


def _attribute(attributes: str, name: str, *, escaped: bool = False) -> str:
    for found in _ATTRIBUTE.finditer(attributes):
        if found[1].lower() == name:
            value = found[2] or found[3] or found[4] or ""
            return value if escaped else _unescaped(value)
    return ""


def _unescaped(text: str) -> str:
    """Characters for their references. Python reads no number of more than 4,300 digits."""
    return html.unescape(_LONG_NUMBER.sub(_shortened, text))


def _shortened(reference: re.Match[str]) -> str:
    """The same number; eight digits that count are beyond all characters already."""
    return f"&#{reference[1].lstrip('0')[:8] or '0'};"
