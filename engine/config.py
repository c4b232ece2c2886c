"""Every setting of a node, typed, with its unit in its name.

Read once by the composition root: defaults, then ``outspool.toml``, then environment variables
``OUTSPOOL_<SECTION>_<FIELD>`` (``OUTSPOOL_HTTP_PORT=8081``), then command-line options.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from engine.calendar_rules import zone
from engine.errors import InvalidError

_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s]+")


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The node as a whole."""

    data_dir: str = "outspool-data"  # database, keys, media
    gateways: tuple[str, ...] = ("sip", "smpp", "smtp", "loopback")  # those this node runs
    calls_per_second: float = 0.0  # node-wide start rate, 0 = no limit
    channels: int = 2000  # spools up at once, node-wide
    timezone: str = "UTC"  # of accounts that have none of their own
    drain_timeout_s: float = 60.0  # how long SIGTERM lets calls end by themselves

    def __post_init__(self) -> None:
        """``ValueError`` for a time zone that nobody knows; said at the start, not at noon."""
        try:
            zone(self.timezone)
        except InvalidError as error:
            raise ValueError(str(error)) from None


class HttpConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The REST server."""

    host: str = "127.0.0.1"
    port: int = 8080
    max_body_bytes: int = 2_000_000  # JSON bodies
    max_csv_bytes: int = 500_000_000  # contact imports (streamed)
    max_media_bytes: int = 64_000_000  # uploaded recordings
    max_connections: int = 1000
    keep_alive_timeout_s: float = 30.0
    shutdown_timeout_s: float = 5.0
    token_lifetime_s: int = 86_400  # JWT of /authenticate
    trusted_proxies: tuple[str, ...] = ()  # their X-Forwarded-For says who is asking
    cors_origins: tuple[str, ...] = ()  # web pages that may call us; "*" = any, empty = none

    def __post_init__(self) -> None:
        """Refuse what no browser would ever call itself: the setting would be without effect."""
        for origin in self.cors_origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f'{origin!r} is no origin ("https://gui.example.com") and not "*"')


class LoginConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Failed logins: so many at once, after that one more every window / failures."""

    failures_per_account: Annotated[int, Meta(ge=1)] = 10  # of one address for one account
    failures_per_address: Annotated[int, Meta(ge=1)] = 50  # of one address (IPv6: its /64)
    failure_window_s: Annotated[float, Meta(gt=0)] = 300.0


class SipConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sip gateway: signalling workers and the RTP engine."""

    host: str = "127.0.0.1"  # address SIP and RTP are bound to
    port: int = 0  # first SIP port of the workers; 0 = any free ones
    public_host: str = ""  # address written into SDP and Contact; "" = host
    workers_min: int = 2  # signalling processes kept ready (4 calls each)
    workers_max: int = 550
    rtp_port_min: int = 20_000
    rtp_port_max: int = 27_999  # even ports of this range are pre-bound
    rtp_threads: int = 0  # 0 = one a core
    user_agent: str = "Outspool"
    # A far end holds back up to 200 ms in its jitter buffer: BYE right after the last packet would
    # cut the end of what it hears.
    playout_tail_s: float = 0.25  # silence between the end of a recording and our BYE
    transaction_timeout_s: float = 8.0  # no answer at all to an INVITE (timer B): network failure
    ca_file: str = ""  # CA bundle for TLS trunks; "" = the system's


class SmppConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The smpp gateway: what all its providers share; the rest is in each provider's settings."""

    journal: str = "smpp-journal.db"  # in data_dir: what was sent and waits for its receipt
    max_pdu_bytes: int = 70_000  # a longer one closes the connection
    max_queue: int = 10_000  # segments waiting for a place in the window, per provider
    keep_s: float = 604_800.0  # closed messages stay in the journal for late receipts
    ca_file: str = ""  # CA bundle for TLS providers; "" = the system's


class SmtpConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The smtp gateway: what all its providers share, and what listens for mail.

    The listener is for bounces and mail to our accounts; it never relays.
    """

    journal: str = "smtp-journal.db"  # in data_dir: what was sent and may bounce
    keep_s: float = 691_200.0  # closed mails stay in the journal for late bounces
    hostname: str = ""  # EHLO and Message-ID; "" = the machine's
    ca_file: str = ""  # CA bundle for TLS; "" = the system's
    dns_servers: tuple[str, ...] = ()  # "address" or "address:port"; () = the system's
    press_threads: int = 2  # fill in and sign
    max_queue: int = 1_000  # mails that wait for a connection, per provider
    listen_host: str = "127.0.0.1"
    listen_port: int = 0  # 0 = no listener
    listen_certificate: str = ""  # PEM files; "" = no STARTTLS
    listen_key: str = ""
    listen_require_tls: bool = False
    listen_username: str = ""  # AUTH is asked where it is set, within TLS only
    listen_password: str = ""
    listen_connections: int = 100
    listen_connections_per_address: int = 10
    listen_recipients: int = 100  # of one mail
    listen_idle_s: float = 60.0
    listen_session_s: float = 600.0
    max_message_bytes: int = 25_000_000  # of a mail that comes in
    min_free_bytes: int = (
        500_000_000  # of data_dir's disk; with less, mail is put off; 0 = whatever
    )
    readers: int = 2  # processes that read what comes in
    read_timeout_s: float = 20.0
    read_memory_bytes: int = 402_653_184
    repeat_within_s: float = 432_000.0  # the same mail handed over again within so long is one

    def __repr__(self) -> str:
        """A password is for no log."""
        return "SmtpConfig(...)"


class SmsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Short messages as such, whatever carries them."""

    stop_words: tuple[str, ...] = ("STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT")
    start_words: tuple[str, ...] = ("START", "UNSTOP")  # the whole message, in any case
    currency: str = "EUR"  # of the prices in providers' settings


class DialConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of a single call."""

    ring_timeout_s: float = 30.0
    call_limit_s: float = 3600.0  # messages have an hour at least
    media_timeout_s: float = 0.0  # 0 = off
    allowed_prefixes: tuple[str, ...] = ()  # toll-fraud guard: what we may dial; empty = all
    trunk_failures_to_open: int = 5  # consecutive trunk failures that take a provider out of use
    trunk_cooldown_s: float = 15.0  # then one probe call after this long


class RetryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a failed try is repeated while tries are left."""

    busy_delay_s: float = 60.0
    no_answer_delay_s: float = 120.0
    failed_delay_s: float = 30.0
    rejected: bool = False  # a callee who refused is not called again
    interrupted: bool = False  # spools cut by a crash, or stuck, may have reached a person
    interrupted_delay_s: float = 60.0


class ReaperConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What closes transmissions that are in process beyond every deadline."""

    interval_s: float = 30.0
    grace_s: float = 120.0  # beyond ring time-out and call limit, when no job holds it any more


class ScheduleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Runs at a time of day."""

    missed: Literal["fire", "expire"] = "fire"  # a run whose time passed while the node was down
    missed_after_s: float = 300.0  # how late a run is missed and not just late


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The embedded store."""

    url: str = ""  # "" = SQLite in data_dir
    readers: int = 4  # reader connections
    max_batch: int = 2000  # operations in one group commit
    max_queue: int = 50_000  # operations waiting for the writer before callers are held back


class MediaConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Uploads."""

    max_recording_s: float = 3600.0
    max_document_pages: int = 500
    document_timeout_s: float = 30.0  # to read a document (CPU: a third of it), in its own process
    office_program: str = "soffice"  # turns Office documents into PDF if installed; "" = never
    office_timeout_s: float = 90.0


class SecretConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The key of the passwords in the database; 32 bytes in base64."""

    key: str = ""  # "" = the file keys/secrets.key in data_dir, made at the first start
    key_old: str = ""  # former ones, comma separated: what they sealed is sealed anew at start

    def __repr__(self) -> str:
        """Keys are for no log."""
        return "SecretConfig(...)"


class ProvisioningConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What phones are told about where to register (``/accounts/{id}/provisioning``)."""

    host: str = ""  # "" = the public address of the sip gateway
    port: int = 5060
    wss: int = 7443  # SIP over WebSockets


class CompanyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who sends: the tokens ``[company:name]`` … in messages."""

    name: str = ""
    email: str = ""
    phone: str = ""
    address: str = ""


class WebsiteConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the node is on the web: the tokens ``[website:url]`` and ``[website:title]``."""

    url: str = ""
    title: str = "Outspool"


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Logging."""

    level: str = "info"
    json: bool = False


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole tree; one TOML table per field."""

    node: NodeConfig = NodeConfig()
    http: HttpConfig = HttpConfig()
    login: LoginConfig = LoginConfig()
    sip: SipConfig = SipConfig()
    smpp: SmppConfig = SmppConfig()
    smtp: SmtpConfig = SmtpConfig()
    sms: SmsConfig = SmsConfig()
    dial: DialConfig = DialConfig()
    retry: RetryConfig = RetryConfig()
    reaper: ReaperConfig = ReaperConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    store: StoreConfig = StoreConfig()
    media: MediaConfig = MediaConfig()
    company: CompanyConfig = CompanyConfig()
    website: WebsiteConfig = WebsiteConfig()
    log: LogConfig = LogConfig()
    secret: SecretConfig = SecretConfig()
    provisioning: ProvisioningConfig = ProvisioningConfig()

    @property
    def data_path(self) -> Path:
        """Where everything the node keeps is."""
        return Path(self.node.data_dir)


def load(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Mapping[str, Any]]
) -> Config:
    """The configuration; raises ``InvalidError`` naming the offending field.

    ``overrides`` has the TOML's shape and wins over everything.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise InvalidError(f"{path}: {error}") from error
    for section, values in _from_environ(environ).items():
        tree.setdefault(section, {}).update(values)
    for section, chosen in overrides.items():
        tree.setdefault(section, {}).update(chosen)
    try:
        return msgspec.convert(tree, Config, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidError(f"configuration: {error}") from error


_LISTS = frozenset(
    {
        "allowed_prefixes", "cors_origins", "dns_servers", "gateways", "start_words", "stop_words",
        "trusted_proxies",
    }
)  # fmt: skip


def _from_environ(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    tree: dict[str, dict[str, Any]] = {}
    defaults = Config()
    for section in Config.__struct_fields__:
        for field in getattr(defaults, section).__struct_fields__:
            value = environ.get(f"OUTSPOOL_{section}_{field}".upper())
            if value is not None:
                tree.setdefault(section, {})[field] = (
                    [part.strip() for part in value.split(",") if part.strip()]
                    if field in _LISTS
                    else value
                )
    return tree
