"""The ICTCore dialect, as its guide documents it: one file per resource, each in three parts.

The parts are: how bodies are read, how rows are shown, the handlers with their routes.
"""

from __future__ import annotations

from api.ictcore import (
    accounts,
    authenticate,
    campaigns,
    contacts,
    groups,
    programs,
    providers,
    recordings,
    spools,
    statistics,
    transmissions,
)
from api.ictcore.errors import MEANING
from api.ictcore.translate import Guide
from api.routing import Dialect

RESOURCES = (
    authenticate, contacts, groups, recordings, programs, transmissions, spools, campaigns,
    providers, accounts, statistics,
)  # fmt: skip

ICTCORE = Dialect(
    name="ictcore",
    prefix="",
    routes=tuple(route for resource in RESOURCES for route in resource.ROUTES),
    translator=Guide(),
    meanings=MEANING,
)
