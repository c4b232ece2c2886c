"""What node and worker say to each other: one JSON array a line, its first word the verb.

Kept free of pjsua2 so that the node, which never loads it, can share it.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

SLOTS = 4  # PJSUA_MAX_CALLS of the wheel: calls one process can carry


class Verb(StrEnum):
    """First word of a line."""

    # node → worker
    CALL = "call"  # number, CallSpec
    HANG_UP = "hangup"  # number
    NAME = "name"  # host, [IPv4 addresses]
    REGISTER = "register"  # RegistrationSpec, or nothing: try again now
    # worker → node
    READY = "ready"  # SIP port
    RING = "ring"  # number, status, Remote | null
    UP = "up"  # number, Remote | null
    MEDIA = "media"  # number, Remote
    END = "end"  # number, Final
    FREE = "free"  # how many slots became free
    ASK = "ask"  # host to look up
    REGISTRATION = "registration"  # status, reason, expires_s


class Origin(StrEnum):
    """Where a final status comes from."""

    WIRE = "wire"  # the far end sent it
    TIMER = "timer"  # nobody answered (RFC 3261 timers B, F)
    TRANSPORT = "transport"  # the packet could not be sent: refused, TLS failure
    LOCAL = "local"  # our stack made it up: unusable SDP, no slot


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What every worker needs to start. ``port`` 0 = any."""

    host: str
    port: int = 0
    public_host: str = ""
    user_agent: str = "Outspool"
    transaction_timeout_s: float = 8.0
    ca_file: str = ""
    goodbye_s: float = 4.0  # after end-of-file: time to get CANCEL and BYE acknowledged


class Credentials(msgspec.Struct, frozen=True, array_like=True):
    """Digest credentials (RFC 8760 §2); ``key`` tells one provider's from another's."""

    key: str
    username: str
    password: str

    def __repr__(self) -> str:
        """Without the password: what is sent may end up in a log or a traceback."""
        return f"Credentials(key={self.key!r}, username={self.username!r})"


class CallSpec(msgspec.Struct, array_like=True):
    """One INVITE. All text was checked by the node; addresses go to the resolver as they are."""

    call_id: str
    request_uri: str
    from_uri: str
    rtp_host: str = ""
    rtp_port: int = 0
    transport: str = "udp"
    headers: list[tuple[str, str]] = []
    credentials: Credentials | None = None
    name: str = ""  # host name in request_uri, "" where it is an address
    addresses: list[str] = []  # what it resolves to


class RegistrationSpec(msgspec.Struct, frozen=True, array_like=True):
    """A registration (RFC 3261 §10) the worker keeps alive."""

    aor: str
    registrar_uri: str
    transport: str
    credentials: Credentials
    name: str = ""
    addresses: list[str] = []
    expires_s: int = 300


class Remote(msgspec.Struct, frozen=True, array_like=True):
    """Where the far end wants its RTP. ``send`` False = on hold or nothing usable yet."""

    host: str = ""
    port: int = 0
    payload_type: int = 0
    dtmf_payload_type: int = -1
    send: bool = False


class Final(msgspec.Struct, frozen=True, array_like=True):
    """How a call ended. ``q850`` 0 = no Reason header (RFC 3326)."""

    code: int
    reason: str = ""
    q850: int = 0
    origin: Origin = Origin.WIRE
    by_callee: bool = False  # the far end sent BYE
    answered: bool = False  # a 2xx came, whatever followed
    rang: bool = False  # a 18x came
