"""The ICTCore dialect: one file per resource, each in three parts.

The parts are: how bodies are read, how rows are shown, the handlers with their routes. They are
mounted twice: as the guide documents them, and below /api as deployed servers answer.
"""

from __future__ import annotations

from api.ictcore import (
    account_programs,
    accounts,
    authenticate,
    campaigns,
    contacts,
    do_not_contact,
    documents,
    groups,
    permissions,
    programs,
    providers,
    recordings,
    roles,
    schedules,
    spools,
    statistics,
    templates,
    texts,
    transmissions,
    users,
    users_csv,
)
from api.ictcore.classic import Classic, readdress, routes
from api.ictcore.errors import MEANING
from api.ictcore.translate import Guide
from api.routing import Dialect

RESOURCES = (
    authenticate, contacts, groups, do_not_contact, documents, recordings, templates,
    texts, programs, transmissions, spools, campaigns,
    providers, accounts, account_programs, schedules, statistics,
    users_csv, users, roles, permissions,
)  # fmt: skip

ICTCORE = Dialect(
    name="ictcore",
    prefix="",
    routes=tuple(route for resource in RESOURCES for route in resource.ROUTES),
    translator=Guide(),
    meanings=MEANING,
)

CLASSIC = Dialect(
    name="classic",
    prefix="/api",
    routes=routes(ICTCORE.routes),
    translator=Classic(),
    meanings=MEANING,
    media_types=("application/json", "text/plain"),
    readdress=readdress,
)
