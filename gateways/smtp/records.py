"""What passes between Trio and the asyncio thread: parcels one way, answers the other. Pure."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec


class At(StrEnum):
    """How far a parcel was when its answer was decided."""

    ROUTE = "route"
    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    TLS = "tls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"


class How(StrEnum):
    """What decided it."""

    REPLY = "reply"
    LOST = "lost"  # the connection ended
    TIMEOUT = "timeout"
    DROPPED = "dropped"  # by us
    REFUSED = "refused"  # no connection
    UNTRUSTED = "untrusted"  # the certificate, or STARTTLS that is required and not there
    NO_ROUTE = "no_route"  # the domain takes no mail, or DNS does not say
    UNABLE = "unable"  # the peer lacks an extension this mail needs


class Route(msgspec.Struct, frozen=True):
    """Where a connection goes. ``name`` is what its certificate must say.

    ``verify`` False: opportunistic TLS, any certificate (RFC 7435).
    """

    host: str
    port: int
    name: str
    verify: bool


class Parcel(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A mail ready for the wire.

    ``id`` is unique in the process and not the spool's. ``sender`` is the envelope's, "" = null.
    ``domain`` is the recipient's in A-labels. ``chunks`` are CRLF lines none of which begins with a
    dot; the last ends in CRLF; ``size`` is their sum. ``not_after`` (time.monotonic()): given up
    then, unless its dot has left.
    """

    id: int
    spool_id: int
    sender: str
    recipient: str
    domain: str
    size: int
    chunks: tuple[bytes, ...]
    not_after: float
    smtputf8: bool = False
    envid: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What became of a parcel.

    ``left``: the final dot was given to the kernel or to TLS, so the mail may be there. ``code``
    and ``text`` are the reply's where ``how`` is REPLY; else ``text`` says why. ``permanent``: of
    NO_ROUTE, the domain will take no mail tomorrow either. ``tries``: connections it was given to.
    """

    id: int
    spool_id: int
    at: At
    how: How
    left: bool
    seen_at: datetime
    code: int = 0
    text: str = ""
    permanent: bool = False
    host: str = ""
    tls: str = ""
    tries: int = 1
