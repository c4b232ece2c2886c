"""Calendar time as an input: ``now()`` is what the code asks, a test may replace it.

Durations use ``trio.current_time()`` (monotonic, virtual in tests); this clock is only for what is
written down: times of spools, due times, tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def now() -> datetime:
    """The present, aware UTC."""
    return datetime.now(UTC)
