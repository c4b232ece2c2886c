"""Names of files that strangers chose. Pure."""

from __future__ import annotations

import itertools
import re
from pathlib import PurePosixPath
from urllib.parse import unquote_to_bytes

MAX_FILE_NAME = 128
# Control characters, halves of pairs, and what some system takes for more than a character.
_UNSAFE = re.compile(
    r'[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff<>:"/\\|?*]'
)
_PARAMETER = re.compile(
    rb';\s*([^\s=;"]{1,60})\s*=\s*(?:"((?:[^"\\]|\\.)*+)"|([^;\s]*))', re.DOTALL
)
_FILENAME = re.compile(rb"filename(?:\*([0-9]{1,3}))?(\*)?", re.IGNORECASE)
_MAX_PARAMETERS = 100


def given_name(disposition: bytes) -> str | None:
    """What a Content-Disposition calls its file (RFC 6266 §4.3); None where it calls it nothing.

    Names are raw UTF-8 as browsers send them (RFC 7578 §5.1), else Latin-1. Extended ones (RFC
    8187, in the pieces of RFC 2231 §3 too) go before plain ones; the first of a name counts.
    """
    plain: bytes | None = None
    pieces: dict[int, tuple[bytes, bool]] = {}
    for found in itertools.islice(_PARAMETER.finditer(disposition), _MAX_PARAMETERS):
        value = found[3] if found[2] is None else re.sub(rb'\\(["\\])', rb"\1", found[2])
        name = _FILENAME.fullmatch(found[1])
        if name and (name[1] or name[2]):
            pieces.setdefault(int(name[1] or 0), (value, name[2] is not None))
        elif name and plain is None:
            plain = value
    return _joined(pieces) if pieces else None if plain is None else _text(plain)


def _joined(pieces: dict[int, tuple[bytes, bool]]) -> str:
    first, extended = pieces.get(0, (b"", False))
    charset = b""
    if extended and first.count(b"'") > 1:
        charset, _, first = first.split(b"'", 2)
        pieces = {**pieces, 0: (first, True)}
    ordered = (piece for _, piece in sorted(pieces.items()))
    octets = b"".join([unquote_to_bytes(value) if percent else value for value, percent in ordered])
    return octets.decode("latin-1") if charset.lower() == b"iso-8859-1" else _text(octets)


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def safe_name(name: str) -> str:
    """The last part of a file's name without what could be more than a name; "" if nothing is left.

    Its extension survives a cut.
    """
    last = re.split(r"[/\\]", name)[-1]
    bare = _UNSAFE.sub("", last).strip(" .")
    suffix = PurePosixPath(bare).suffix[:16]
    return bare if len(bare) <= MAX_FILE_NAME else bare[: MAX_FILE_NAME - len(suffix)] + suffix
