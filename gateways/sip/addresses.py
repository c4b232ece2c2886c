"""Everything of the outside that goes into a SIP message is checked or escaped here, once.

A number, a name or a provider's field with CR, LF, quotes or spaces in it must never become another
header, another parameter or another destination.
"""

from __future__ import annotations

import ipaddress
import re
import string
from functools import lru_cache
from urllib.parse import quote

from engine.errors import InvalidError
from engine.gateway import Order
from engine.model import Provider
from native.pjsua.wire import CallSpec, Credentials, RegistrationSpec

TRANSPORTS = ("udp", "tcp", "tls")
_MAX_USER = 128
_MAX_NAME = 64
_MAX_CREDENTIAL = 128
_MAX_PORT = 65_535
_HOST = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?\Z"
)
# RFC 3261 §25.1 "unreserved"; a number keeps nothing else but "+".
_UNRESERVED = "-_.!~*'()"
_NUMBER_SAFE = _UNRESERVED + "+"
# The operator's own dialstring may use all of "user-unreserved" (parameters, "7,123").
_DIALSTRING_SAFE = _UNRESERVED + "&=+$,;?/"
_QUOTABLE = set(string.printable) - set(string.whitespace) - {'"', "\\"} | {" "}


def call_spec(order: Order, found: list[str]) -> CallSpec:
    """The INVITE for ``order`` but for its RTP address; raises ``InvalidError`` with the field."""
    provider = order.provider
    literal = is_address(provider.host)
    return CallSpec(
        call_id=str(order.uid),
        request_uri=request_uri(order),
        from_uri=from_header(order),
        transport=transport(provider),
        headers=extra_headers(order),
        credentials=credentials(provider),
        name="" if literal else provider.host,
        addresses=[] if literal else found,
    )


def user_agent(text: str) -> str:
    """The User-Agent header's value; raises ``InvalidError``."""
    if not text.isprintable() or not text.isascii() or len(text) > _MAX_NAME:
        raise InvalidError("printable ASCII, at most 64 characters", field="user_agent")
    return text


def request_uri(order: Order) -> str:
    """The Request-URI of ``order``; raises ``InvalidError`` where it cannot be one."""
    provider = order.provider
    return f"sip:{user_part(order.destination, provider.dialstring)}@{_authority(provider)}"


def from_header(order: Order) -> str:
    """Name and address the callee sees: caller id, else the trunk's user, else anonymous."""
    provider = order.provider
    user = order.caller_id or provider.username or "anonymous"
    uri = f"<sip:{user_part(user)}@{host(provider.host)}>"
    name = display_name(order.caller_name)
    return f"{name} {uri}" if name else uri


def extra_headers(order: Order) -> list[tuple[str, str]]:
    """Headers besides the usual ones.

    P-Asserted-Identity only where the provider's settings ask for it: it is for trusted peers
    (RFC 3325 §6), and a trunk that does not expect it may refuse the call.
    """
    if order.caller_id and order.provider.settings.get("p_asserted_identity"):
        uri = f"<sip:{user_part(order.caller_id)}@{host(order.provider.host)}>"
        return [("P-Asserted-Identity", uri)]
    return []


@lru_cache(maxsize=4096)
def user_part(number: str, dialstring: str = "") -> str:
    """The user part of a SIP URI for ``number``, put into ``dialstring`` at ``{number}``."""
    if not number or len(number) > _MAX_USER:
        raise InvalidError("a number has 1 to 128 characters", field="destination")
    if any(ord(character) < 32 or ord(character) == 127 for character in number):  # noqa: PLR2004
        raise InvalidError("a number has no control characters", field="destination")
    escaped = quote(number.replace(" ", ""), safe=_NUMBER_SAFE, errors="replace")
    if not escaped:
        raise InvalidError("a number is not only spaces", field="destination")
    if "{number}" not in dialstring:
        return escaped
    parts = dialstring.split("{number}")
    return escaped.join(quote(part, safe=_DIALSTRING_SAFE, errors="replace") for part in parts)


@lru_cache(maxsize=4096)
def display_name(name: str) -> str:
    """``name`` as a quoted-string (RFC 3261 §25.1), "" for an empty one; nothing can leave it."""
    kept = "".join(c for c in name if c in _QUOTABLE or (c.isprintable() and ord(c) > 127))  # noqa: PLR2004
    kept = kept[:_MAX_NAME].strip()
    return f'"{kept}"' if kept else ""


@lru_cache(maxsize=4096)
def host(name: str) -> str:
    """A host name or IPv4 address, as is; raises ``InvalidError``. The SIP wheel has no IPv6."""
    if not _HOST.match(name):
        raise InvalidError("not a host name or IPv4 address", field="host")
    return name


@lru_cache(maxsize=4096)
def is_address(name: str) -> bool:
    """Whether ``name`` is an IPv4 address: nothing to look up."""
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


def transport(provider: Provider) -> str:
    """The provider's transport; raises ``InvalidError``."""
    if provider.transport not in TRANSPORTS:
        raise InvalidError("transport is udp, tcp or tls", field="transport")
    return provider.transport


def credentials(provider: Provider) -> Credentials | None:
    """Digest credentials of a provider, None where it has none; raises ``InvalidError``.

    The user name goes into the Authorization header between quotes as it is; the password is only
    hashed. Both must be what a C string can hold.
    """
    if not provider.username:
        return None
    for field, value in (("username", provider.username), ("password", provider.password)):
        if len(value) > _MAX_CREDENTIAL or not value.isprintable():
            raise InvalidError("too long or with control characters", field=field)
    if set('"\\') & set(provider.username):
        raise InvalidError("a user name has no quotes", field="username")
    return Credentials(f"{provider.id}", provider.username, provider.password)


def registration(provider: Provider, addresses: list[str]) -> RegistrationSpec:
    """What the registrar worker needs; raises ``InvalidError``."""
    found = credentials(provider)
    if found is None:
        raise InvalidError("registration needs a user name", field="username")
    authority = _authority(provider)
    return RegistrationSpec(
        aor=f"sip:{user_part(provider.username)}@{host(provider.host)}",
        registrar_uri=f"sip:{authority}",
        transport=transport(provider),
        credentials=found,
        name="" if is_address(provider.host) else provider.host,
        addresses=addresses,
    )


def _authority(provider: Provider) -> str:
    return _host_port(provider.host, provider.port, transport(provider))


@lru_cache(maxsize=4096)
def _host_port(name: str, port: int, kind: str) -> str:
    if not 0 < port <= _MAX_PORT:
        raise InvalidError("a port is 1 to 65535", field="port")
    suffix = "" if kind == "udp" else f";transport={kind}"
    return f"{host(name)}:{port}{suffix}"
