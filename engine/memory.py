"""How the garbage collector is set for a dialer.

With 600,000 live objects the default thresholds pause for 212 ms, these for 3 ms; thousands of
tasks starting and ending would trigger it many times a second (engine.md §3).
"""

from __future__ import annotations

import gc

THRESHOLDS = (50_000, 10, 10)


def settle() -> None:
    """Call once everything a node keeps for its life is loaded."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
