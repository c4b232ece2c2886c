"""How a provider's connections are made: out of its row, its settings and the config. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from engine.config import SmtpConfig
from engine.errors import InvalidError
from engine.model import Provider
from gateways.smtp.settings import SmtpSettings

SMTP_PORT, SUBMISSIONS_PORT = 25, 465
TRANSPORTS = ("tcp", "tls")


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """What all connections of a provider share. ``direct``: to the MX of each domain."""

    direct: bool
    host: str
    port: int
    hostname: str  # ours, in EHLO
    provider: str = ""  # its name, for the log
    implicit_tls: bool = False
    starttls: Literal["require", "offer", "never"] = "require"
    verify: bool = True
    ca_file: str = ""
    username: str = ""
    password: str = ""
    auth: Literal["auto", "plain", "login", "cram-md5"] = "auto"
    auth_without_tls: bool = False
    dsn: bool = True
    connect_timeout_s: float = 30.0
    reply_timeout_s: float = 300.0
    dot_timeout_s: float = 600.0

    def __repr__(self) -> str:
        """Without the password."""
        return f"Manner({self.host!r}:{self.port})"


def check(provider: Provider, settings: SmtpSettings) -> None:
    """``InvalidError`` names what of the row no connection could do (RFC 4954 §4)."""
    if provider.transport not in TRANSPORTS:
        raise _refused("transport", f"one of {', '.join(TRANSPORTS)}")
    if not provider.host and provider.transport == "tls":
        raise _refused("transport", "only a relay has TLS from the first byte, not MX")
    if not provider.host and provider.username:
        raise _refused("username", "only a relay has a login, not MX")
    clear = provider.transport == "tcp" and settings.starttls == "never"
    if provider.username and clear and not settings.auth_without_tls:
        raise _refused("username", "a login needs TLS or auth_without_tls, and starttls is never")


def manner_of(
    provider: Provider, settings: SmtpSettings, config: SmtpConfig, hostname: str
) -> Manner:
    """What the row says, with the defaults of a relay or of direct MX (there RFC 7435 §3)."""
    direct = not provider.host
    verify = not direct if settings.verify_tls is None else settings.verify_tls
    implicit = provider.transport == "tls" and not direct
    return Manner(
        direct=direct,
        host=provider.host,
        port=provider.port or (SUBMISSIONS_PORT if implicit else SMTP_PORT),
        hostname=hostname,
        provider=provider.name,
        implicit_tls=implicit,
        starttls=settings.starttls or ("offer" if direct and not verify else "require"),
        verify=verify,
        ca_file=config.ca_file,
        username="" if direct else provider.username,
        password=provider.password,
        auth=settings.auth,
        auth_without_tls=settings.auth_without_tls,
        dsn=settings.dsn,
        connect_timeout_s=settings.connect_timeout_s,
        reply_timeout_s=settings.reply_timeout_s,
        dot_timeout_s=settings.dot_timeout_s,
    )


def _refused(field: str, why: str) -> InvalidError:
    return InvalidError(f"{field}: {why}", field=field)
