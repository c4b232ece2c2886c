"""Readable text of HTML."""

from __future__ import annotations

import html
import re


def plain_text(text: str) -> str:
    """Readable text of HTML, tokens kept."""
    return html.unescape(re.sub(r"<[^>]*>", "", text))
