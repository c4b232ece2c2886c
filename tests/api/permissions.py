"""Which permissions every route needs, and which each role grants.

Written from ICTCore's facts (specs/ictcore.md §2 column P, §4.5), not from the code under test; a
line that differs from ICTCore says why. All permissions of a line are needed, of those split by a
bar one; ``None`` is for everybody, also without a login.
"""

from __future__ import annotations

from collections.abc import Iterator

Needed = frozenset[str] | None
Table = dict[tuple[str, str], Needed]


def _needs(*permissions: str) -> frozenset[str]:
    return frozenset(permissions)


def _plain(family: str, path: str, number: str) -> Iterator[tuple[tuple[str, str], Needed]]:
    one = f"{path}/{{{number}}}"
    yield ("POST", path), _needs(f"{family}_create")
    yield ("GET", path), _needs(f"{family}_list")
    yield ("GET", one), _needs(f"{family}_read")
    yield ("PUT", one), _needs(f"{family}_update")
    yield ("DELETE", one), _needs(f"{family}_delete")


def _messages() -> Iterator[tuple[tuple[str, str], Needed]]:
    for kind in ("document", "recording", "template", "text"):
        for path in (f"/messages/{kind}s", f"/{kind}s"):
            yield from _plain(kind, path, f"{kind}_id")
            if kind != "text":
                media = f"{path}/{{{kind}_id}}/media"
                yield ("PUT", media), _needs(f"{kind}_create")
                yield ("POST", media), _needs(f"{kind}_create")
                yield ("GET", media), _needs(f"{kind}_read")
    for path in ("/messages/texts", "/texts"):
        yield ("POST", f"{path}/preview"), _needs("text_read")  # ours


PROGRAM_TYPES = (
    "emailtofax", "faxtoemail", "receiveemail", "receivefax",
    "receivesms", "sendemail", "sendfax", "sendsms", "voicemessage", "voicetts",
)  # fmt: skip

_REPORT = _needs("transmission_read", "spool_read")
_RESULT = _REPORT | {"result_read"}

PERMISSIONS: Table = {
    ("POST", "/authenticate"): None,
    ("GET", "/statistics"): _needs("statistic_read"),
    **dict(_plain("contact", "/contacts", "contact_id")),
    ("PUT", "/contacts/{contact_id}/link/{group_id}"): _needs("contact_create", "group_create"),
    ("DELETE", "/contacts/{contact_id}/link/{group_id}"): _needs("contact_delete", "group_delete"),
    ("POST", "/do_not_contact"): _needs("contact_create"),  # ours
    ("GET", "/do_not_contact"): _needs("contact_list"),  # ours
    ("GET", "/do_not_contact/{do_not_contact_id}"): _needs("contact_read"),  # ours
    ("DELETE", "/do_not_contact/{do_not_contact_id}"): _needs("contact_delete"),  # ours
    **dict(_plain("group", "/groups", "group_id")),
    ("GET", "/groups/{group_id}/contacts"): _needs("group_read", "contact_list"),
    # ICTCore asks for nothing but a login; an import makes contacts and an export lists them.
    ("POST", "/groups/{group_id}/csv"): _needs("contact_create"),
    ("GET", "/groups/{group_id}/csv"): _needs("contact_list"),
    ("GET", "/groups/{group_id}/csv/progress"): _needs("group_read"),  # ours
    ("GET", "/groups/sample/csv"): _needs(),
    **dict(_messages()),
    **{("POST", f"/programs/{kind}"): _needs("program_create") for kind in PROGRAM_TYPES},
    **{("GET", f"/programs/{kind}"): _needs("program_list") for kind in PROGRAM_TYPES},
    **{("POST", f"/programs/{kind}/transmissions"): _needs("program_create", "transmission_create")
       for kind in PROGRAM_TYPES},
    **dict(_plain("program", "/programs", "program_id")),
    # ICTCore asks for program_create too: its call makes a program. Ours uses the one named.
    ("PUT", "/programs/{program_id}/transmissions"): _needs("transmission_create"),
    ("POST", "/programs/{program_id}/transmissions"): _needs("transmission_create"),
    # ICTCore asks for nothing; it is a list of transmissions like any other.
    ("GET", "/programs/{program_id}/transmissions"): _needs("transmission_list"),
    **dict(_plain("transmission", "/transmissions", "transmission_id")),
    **{("GET", f"/{name}"): _needs("transmission_list")
       for name in ("calls", "faxes", "smses", "emails")},
    ("POST", "/transmissions/{transmission_id}/send"): _needs("transmission_send"),
    ("POST", "/transmissions/{transmission_id}/retry"): _needs("transmission_send"),
    ("PUT", "/transmissions/{transmission_id}/schedule"): _needs(
        "transmission_send", "task_create"
    ),
    ("DELETE", "/transmissions/{transmission_id}/schedule"): _needs(
        "transmission_update", "task_delete"
    ),
    ("GET", "/transmissions/{transmission_id}/clone"): _needs(
        "transmission_read", "transmission_create"
    ),
    ("GET", "/transmissions/{transmission_id}/status"): _needs("transmission_read"),
    **{("GET", f"/transmissions/{{transmission_id}}/{name}"): _REPORT
       for name in ("detail", "logs", "spools")},
    **{("GET", f"/transmissions/{{transmission_id}}/{name}"): _RESULT
       for name in ("result", "results")},
    ("GET", "/spools"): _needs("spool_list"),  # ours
    ("GET", "/spools/{spool_id}/status"): _needs("spool_read"),
    **{("GET", f"/spools/{{spool_id}}/{name}"): _needs("spool_read", "result_read")
       for name in ("result", "results")},
    **dict(_plain("campaign", "/campaigns", "campaign_id")),
    **{(verb, f"/campaigns/{{campaign_id}}/{action}"): _needs(f"campaign_{action}")
       for action in ("start", "stop") for verb in ("PUT", "GET")},
    ("POST", "/campaigns/{campaign_id}/check"): _needs("campaign_read", "contact_list"),  # ours
    # ICTCore asks for task_create alone; who may not start a campaign may not start it later.
    **{(verb, f"/campaigns/{{campaign_id}}/{action}/schedule"): _needs(
           "task_create", f"campaign_{action}")
       for action in ("start", "stop") for verb in ("PUT", "POST")},
    **{("DELETE", f"/campaigns/{{campaign_id}}/{action}/schedule"): _needs(
           "task_delete", f"campaign_{action}")
       for action in ("start", "stop")},
    # ICTCore asks for nothing. POST is how its guide prints this delete.
    **{(verb, "/campaigns/{campaign_id}/schedule"): _needs(
           "task_delete", "campaign_start", "campaign_stop")
       for verb in ("DELETE", "POST")},
    **{("GET", f"/{noun}s/{{{noun}_id}}/schedule"): _needs(f"{noun}_read", "task_list")  # ours
       for noun in ("campaign", "transmission")},
    ("GET", "/schedules"): _needs("task_list"),  # ours
    **dict(_plain("provider", "/providers", "provider_id")),
    **dict(_plain("account", "/accounts", "account_id")),
    **{("POST", f"/{name}"): _needs("account_create") for name in ("dids", "extensions")},
    **{("GET", f"/{name}"): _needs("account_list") for name in ("dids", "extensions")},
    ("GET", "/accounts/{account_id}/provisioning"): _needs("account_read"),
    ("GET", "/accounts/{account_id}/programs"): _needs("account_read", "program_list"),  # ours
    **{("PUT", f"/accounts/{{account_id}}/programs/{{{word}}}"): _needs(
           "account_update", "program_create", "program_execute")
       for word in ("program_id", "type")},
    **{("DELETE", f"/accounts/{{account_id}}/programs{word}"): _needs(
           "account_update", "program_delete")
       for word in ("", "/{program_id}", "/{type}")},
    ("PUT", "/accounts/{account_id}/users/{user_id}"): _needs("account_create", "user_update"),
    ("DELETE", "/accounts/{account_id}/users"): _needs("account_delete", "user_update"),
    ("GET", "/accounts/{account_id}/settings/{name}"): _needs("account_read"),
    **{(verb, "/accounts/{account_id}/settings/{name}"): _needs("account_update")
       for verb in ("PUT", "DELETE")},
    ("POST", "/authenticate/cancel"): None,
    **dict(_plain("user", "/users", "user_id")),
    ("GET", "/users"): _needs("user_list|user_read"),  # of oneself alone without user_list
    # One's own needs user_password; ICTCore lets that change everybody's.
    ("GET", "/users/{username}"): _needs("user_read"),
    ("PUT", "/users/{user_id}/password"): _needs("user_update", "user_admin"),
    ("GET", "/users/{user_id}/accounts"): _needs("user_read", "account_list"),
    ("GET", "/users/{user_id}/roles"): _needs("user_list", "role_list"),
    **{(verb, "/users/{user_id}/roles/{role_id}"): _needs("user_update", "role_update")
       for verb in ("PUT", "DELETE")},
    ("GET", "/users/{user_id}/permissions"): _needs("user_list", "permission_list"),
    ("PUT", "/users/{user_id}/permissions/{permission_id}"): _needs(
        "user_update", "permission_create"
    ),
    ("DELETE", "/users/{user_id}/permissions/{permission_id}"): _needs(
        "user_update", "permission_delete"
    ),
    ("POST", "/users/csv"): _needs("user_create"),
    # ICTCore's draft asks for nothing.
    ("GET", "/users/csv"): _needs("user_list"),
    **dict(_plain("role", "/roles", "role_id")),
    ("PUT", "/roles/{role_id}/permissions/{permission_id}"): _needs(
        "role_update", "permission_create"
    ),
    ("DELETE", "/roles/{role_id}/permissions/{permission_id}"): _needs(
        "role_update", "permission_delete"
    ),
    ("POST", "/permissions"): _needs("permission_create"),
    ("GET", "/permissions"): _needs("permission_list"),
    ("GET", "/permissions/{permission_id}"): _needs("permission_read"),  # ours
    ("DELETE", "/permissions/{permission_id}"): _needs("permission_delete"),  # ours
}  # fmt: skip

_WORK = ("contact", "document", "recording", "template", "text", "program", "transmission", "task",
         "schedule", "spool", "result", "group", "campaign")  # fmt: skip

ROLES: dict[str, frozenset[str]] = {
    "user": _needs(
        "api", "statistic_read", "configuration_read", "user_read", "user_password", "usr_read",
        "usr_password", "account_read", "account_update", "account_list", *_WORK,
    ),
    # With "<family>_admin" of everything that is owned: ICTCore knows no ownership at all.
    "admin": _needs(
        "api", "statistic", "configuration", "user", "usr", "role", "permission", "account",
        "provider",
        *(f"{family}_admin" for family in (*_WORK, "account", "provider", "statistic", "user")),
    ),
}  # fmt: skip


def grants(granted: frozenset[str], needed: Needed) -> bool:
    """Whether ``granted`` holds all of ``needed``."""
    return needed is None or all(
        any(_grants(granted, permission) for permission in choice.split("|")) for choice in needed
    )


def _grants(granted: frozenset[str], permission: str) -> bool:
    """By name, or by the bare family, which is every verb but "admin"."""
    family, _, verb = permission.partition("_")
    return permission in granted or (family in granted and verb != "admin")
