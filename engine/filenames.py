"""Names of files that strangers chose. Pure."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

MAX_FILE_NAME = 128
# Control characters, and what some system takes for more than a character of a name.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069<>:"/\\|?*]')


def safe_name(name: str) -> str:
    """The last part of a file's name without what could be more than a name; "" if nothing is left.

    Its extension survives a cut.
    """
    last = re.split(r"[/\\]", name)[-1]
    bare = _UNSAFE.sub("", last).strip(" .")
    suffix = PurePosixPath(bare).suffix[:16]
    return bare if len(bare) <= MAX_FILE_NAME else bare[: MAX_FILE_NAME - len(suffix)] + suffix
