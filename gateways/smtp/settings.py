"""What a provider of type smtp is, out of its row: host, login and ``settings``, checked. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from engine.addresses import plain
from engine.errors import InvalidError
from gateways.settings import converted
from gateways.smtp import dkim_keys
from gateways.smtp.verp import TOKEN_CHARACTERS

Seconds = Annotated[float, Meta(gt=0, le=604_800)]
Port = Annotated[int, Meta(ge=1, le=65_535)]
Line = Annotated[str, Meta(max_length=254)]
UnknownPolicy = Literal["at_most_once", "at_least_once"]

TOKEN = "{token}"  # noqa: S105 - the place of a bounce token, not a secret
MAX_SESSION_S = 3_000.0
"""All that a mail may wait for while its spool is in hand (of its order's limit, an hour)."""

MAX_KEYS = 32


class DkimKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signing key; its name in ``settings.dkim`` is that of its DNS record."""

    private_key: str = ""  # PEM; sealed at rest. "" while settings are checked without secrets

    def __repr__(self) -> str:
        """Without the key: a log may show settings."""
        return "DkimKey()"


class ImapSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mailbox that bounces and mail come to, for who has no listener (RFC 9051)."""

    host: Line
    username: Line
    password: Line = ""  # sealed at rest
    tls: Literal["implicit", "starttls", "never"] = "implicit"  # RFC 8314 §3
    port: Port | None = None  # None: 993 with implicit TLS, else 143
    verify_tls: bool = True
    folder: Line = "INBOX"
    poll_s: Annotated[float, Meta(ge=5, le=86_400)] = 60.0
    after: Literal["delete", "seen", "move"] = "delete"  # what becomes of a mail that was taken
    move_to: Line = ""

    def __repr__(self) -> str:
        """Without the password."""
        return f"ImapSettings({self.username!r} at {self.host!r})"


class SmtpSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """``Provider.settings`` of type smtp, field by field; what is left out has these values.

    A host is a relay, none is direct MX. TLS from the first byte is the provider's ``transport``
    tls, AUTH its username and password; mails a second and in hand at once are its
    ``calls_per_second`` and ``channels``.
    """

    # --- session
    starttls: Literal["require", "offer", "never"] | None = None  # None: require; MX: offer
    verify_tls: bool | None = None  # None: yes; MX: no, their names prove nothing (RFC 7435)
    auth: Literal["auto", "plain", "login", "cram-md5"] = "auto"  # RFC 4954
    auth_without_tls: bool = False  # RFC 4954 §4: a password in the clear is for the asking only
    connections: Annotated[int, Meta(ge=1, le=200)] = 10  # to the relay, or to each domain at MX …
    connections_all: Annotated[int, Meta(ge=1, le=1_000)] = 100  # … and to all of them
    messages_per_connection: Annotated[int, Meta(ge=1, le=100_000)] = 100
    idle_s: Seconds = 10.0  # then QUIT
    connect_timeout_s: Seconds = 30.0
    reply_timeout_s: Seconds = 300.0  # §4.5.3.2: of every command …
    dot_timeout_s: Seconds = 600.0  # … and of the final dot
    queue_s: Seconds = 600.0  # without a connection for so long: put off
    domain_per_second: Annotated[float, Meta(ge=0, le=10_000)] = 0.0  # mails, 0 = no limit
    retry_s: Annotated[tuple[Seconds, ...], Meta(max_length=100)] = (
        *(300.0, 900.0, 1_800.0, 3_600.0, 7_200.0),
        *(14_400.0,) * 11,  # §4.5.4.1: a retry interval of hours, given up after 2 days
    )

    # --- addresses
    from_address: str = ""  # where the account has none
    from_name: Line = ""
    reply_to: str = ""
    bounce_address: str = ""  # with {token}; "" = the sender's: bounces do not reach us
    bounce_wait_s: Annotated[float, Meta(ge=0, le=604_800)] = 900.0  # counts with bounce_address

    # --- what comes back
    dsn: bool = True  # RET, ENVID and NOTIFY where they are offered (RFC 3461)
    suppress: bool = True  # close addresses that do not exist …
    suppress_most_percent: Annotated[float, Meta(ge=1, le=100)] = 20.0  # … unless so many do not
    unknown: UnknownPolicy = "at_most_once"  # the dot had left and nobody saw an answer
    imap: ImapSettings | None = None

    # --- signing: "selector._domainkey.example.org" → {"private_key": PEM}
    dkim: dict[str, DkimKey] = {}


def parse(settings: dict[str, Any]) -> SmtpSettings:
    """The settings; ``InvalidError`` names what is wrong with them."""
    parsed = converted(_with_hidden_keys(settings), SmtpSettings, "smtp settings")
    _check_addresses(parsed)
    _check_times(parsed)
    _check_keys(parsed)
    if parsed.imap is not None:
        _check_imap(parsed.imap)
    return parsed


def short_keys(settings: SmtpSettings) -> list[str]:
    """DNS names of keys that are used but should be longer (RFC 8301 §3.2), for a warning."""
    return [
        name
        for name, key in settings.dkim.items()
        if key.private_key and dkim_keys.is_short(dkim_keys.private_key(name, key.private_key))
    ]


def _with_hidden_keys(settings: dict[str, Any]) -> dict[str, Any]:
    """A DNS name with ``secret`` or ``token`` in it makes all below it a secret, shown as ""."""
    keys = settings.get("dkim")
    if not isinstance(keys, dict):
        return settings
    return {**settings, "dkim": {name: key or {} for name, key in keys.items()}}


def _check_addresses(settings: SmtpSettings) -> None:
    for field in ("from_address", "reply_to"):
        if text := getattr(settings, field):
            _check_address(field, text)
    if any(not each.isprintable() for each in settings.from_name):
        raise _refused("from_name", "must be one line of text")
    if settings.bounce_address:
        local, _, domain = settings.bounce_address.rpartition("@")
        if local.count(TOKEN) != 1 or "{" in local.replace(TOKEN, "") or "{" in domain:
            raise _refused("bounce_address", f"must have {TOKEN} once before the @")
        _check_address(
            "bounce_address", settings.bounce_address.replace(TOKEN, "x" * TOKEN_CHARACTERS)
        )


def _check_address(field: str, text: str) -> None:
    if plain(text) != text:
        raise _refused(field, "must be an e-mail address and nothing else")


def _check_times(settings: SmtpSettings) -> None:
    parts = ("queue_s", "connect_timeout_s", "reply_timeout_s", "dot_timeout_s")
    if sum(getattr(settings, part) for part in parts) > MAX_SESSION_S:
        raise _refused(" + ".join(parts), f"must be at most {MAX_SESSION_S:.0f} together")


def _check_keys(settings: SmtpSettings) -> None:
    if len(settings.dkim) > MAX_KEYS:
        raise _refused("dkim", f"must have at most {MAX_KEYS} keys")
    for name, key in settings.dkim.items():
        dkim_keys.selector_and_domain(name)
        if key.private_key:
            dkim_keys.private_key(name, key.private_key)


def _check_imap(imap: ImapSettings) -> None:
    for field in ("host", "username", "password", "folder", "move_to"):
        if any(not each.isprintable() for each in getattr(imap, field)):
            raise _refused(f"imap.{field}", "must be one line of text")
    for field in ("host", "username", "folder"):
        if not getattr(imap, field):
            raise _refused(f"imap.{field}", "must not be empty")
    if (imap.after == "move") != bool(imap.move_to):
        raise _refused("imap.move_to", "must be there with after = move, and only then")
    if imap.move_to == imap.folder:
        raise _refused("imap.move_to", "must be another folder")


def _refused(field: str, why: str) -> InvalidError:
    return InvalidError(f"smtp settings: {field}: {why}", field="settings")
