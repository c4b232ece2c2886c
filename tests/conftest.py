"""Settings for the whole suite. Fixtures live beside the tests that use them."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from api.log import configure
from engine.config import LogConfig

# No test is timed (a busy machine is no defect): hypothesis must not time them either.
settings.register_profile(
    "outspool", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("outspool")

# As in a node: structured, to stderr, and a full disk does not end the run.
configure(LogConfig())
