"""The tables, in SQLAlchemy Core: one description for every backend and for the migrations.

Spellings: times are integer microseconds since 1970 UTC, ``uid`` is 16 bytes, maps and lists are
JSON text. Ids are AUTOINCREMENT: an id is never given twice, so a row that still names a deleted
one (``owner_id``) can never come to mean another.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    text,
)

from engine.model import (
    Account,
    Campaign,
    Contact,
    Document,
    DoNotContact,
    Entity,
    Group,
    Permission,
    Program,
    Provider,
    Recording,
    RevokedToken,
    Role,
    Spool,
    SpoolResult,
    Subscription,
    Task,
    Template,
    Transmission,
    User,
)
from engine.model import Text as SmsText

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

# SQLite gives AUTOINCREMENT to INTEGER only, which holds 64 bits there anyway.
Big = BigInteger().with_variant(Integer, "sqlite")


def _entity(name: str, *columns: Column[Any]) -> Table:
    """A table with the columns every noun carries."""
    return Table(
        name,
        METADATA,
        Column("id", Big, primary_key=True, autoincrement=True),
        Column("uid", LargeBinary(16), nullable=False),
        Column("owner_id", Big),
        Column("created_at", Big, nullable=False),
        Column("updated_at", Big, nullable=False),
        *columns,
        sqlite_autoincrement=True,
    )


def _text(*names: str) -> list[Column[Any]]:
    return [Column(name, Text, nullable=False) for name in names]


def _added(name: str, kind: Any, default: str, *, nullable: bool = False) -> Column[Any]:
    """A column that came after the first release: rows that were there hold ``default``."""
    return Column(name, kind, nullable=nullable, server_default=default)


def _time(*names: str) -> list[Column[Any]]:
    return [Column(name, Big) for name in names]


def _to(name: str, target: str, *, required: bool = False, gone: str | None = None) -> Column[Any]:
    """A reference; ``gone`` is what happens to us when the other row is deleted (None: refused)."""
    return Column(name, Big, ForeignKey(f"{target}.id", ondelete=gone), nullable=not required)


def _partial(name: str, *columns: ColumnElement[Any], where: str, unique: bool = False) -> Index:
    return Index(
        name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where)
    )


usr = _entity(
    "usr",
    *_text(
        "username", "password_hash", "first_name", "last_name", "phone", "email", "address",
        "company",
    ),
    Column("active", Boolean, nullable=False),
    *_text("roles"),
    Column("country_id", Integer),
    _added("language_id", Text, ""),
    Column("timezone_id", Integer),
    _added("permissions", Text, "[]"),
    *_time("tokens_from"),
)  # fmt: skip

role = _entity("role", *_text("name", "description", "permissions"))

permission = _entity("permission", *_text("name", "description"))

revoked_token = _entity("revoked_token", *_text("jti"), Column("expires_at", Big, nullable=False))

account = _entity(
    "account",
    *_text(
        "type", "username", "passwd", "passwd_pin", "first_name", "last_name", "phone", "email",
        "address", "settings",
    ),
    Column("active", Boolean, nullable=False),
    _added("timezone", Text, ""),
)  # fmt: skip

contact = _entity(
    "contact",
    *_text(
        "first_name", "last_name", "phone", "email", "address", "custom1", "custom2", "custom3",
        "description",
    ),
)  # fmt: skip

contact_group = _entity(
    "contact_group",
    *_text("name", "description"),
    Column("contact_total", Integer, nullable=False),
)

# Its own id is the keyset a campaign walks: members in the order they joined.
contact_link = Table(
    "contact_link",
    METADATA,
    Column("link_id", Big, primary_key=True, autoincrement=True),
    _to("group_id", "contact_group", required=True, gone="CASCADE"),
    _to("contact_id", "contact", required=True, gone="CASCADE"),
    sqlite_autoincrement=True,
)

recording = _entity(
    "recording",
    *_text("name", "description", "type", "media_path", "original_path", "original_type"),
    Column("length_s", Float, nullable=False),
)

document = _entity(
    "document",
    *_text(
        "name", "description", "type", "quality", "media_path", "original_path", "original_type",
    ),
    Column("pages", Integer, nullable=False),
    Column("size_x", Float, nullable=False),
    Column("size_y", Float, nullable=False),
    Column("resolution_x", Integer, nullable=False),
    Column("resolution_y", Integer, nullable=False),
)  # fmt: skip

template = _entity(
    "template",
    *_text("name", "description", "type", "subject", "body", "body_alt", "attachments"),
)

sms_text = _entity(
    "sms_text",
    *_text("name", "description", "type", "data"),
    _added("flash", Boolean, "0"),
    _added("validity_s", Float, "0"),
)

program = _entity(
    "program",
    *_text("name", "type", "data"),
    Column("message_id", Big),
    _to("parent_id", "program", gone="SET NULL"),
)

subscription = _entity(
    "subscription",
    _to("account_id", "account", required=True, gone="CASCADE"),
    _to("program_id", "program", required=True, gone="CASCADE"),
)

provider = _entity(
    "provider",
    *_text("name", "type"),
    Column("service", Integer, nullable=False),
    *_text("host"),
    Column("port", Integer, nullable=False),
    *_text("transport", "username", "password", "dialstring", "prefix", "settings", "description"),
    Column("register", Boolean, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("node_id", Integer, nullable=False),
    Column("calls_per_second", Float, nullable=False),
    Column("channels", Integer, nullable=False),
)

# contact_total and contact_done are not stored: see ``rows.columns``.
campaign = _entity(
    "campaign",
    _to("program_id", "program", required=True),
    _to("group_id", "contact_group", required=True),
    _to("account_id", "account"),
    Column("calls_per_minute", Float, nullable=False),
    Column("try_allowed", Integer, nullable=False),
    *_text("status", "source"),
    Column("cursor", Big, nullable=False),
    *_time("last_run"),
    _added("retry_delays", Text, "{}"),
)

# screened: we chose not to try it, so its response is no spool's (the tallies need to know).
transmission = _entity(
    "transmission",
    *_text("title"),
    Column("service", Integer, nullable=False),
    _to("program_id", "program", required=True),
    _to("account_id", "account", gone="SET NULL"),
    _to("contact_id", "contact", gone="SET NULL"),
    _to("campaign_id", "campaign", gone="SET NULL"),
    *_text("origin", "direction", "status", "response"),
    Column("try_allowed", Integer, nullable=False),
    Column("try_done", Integer, nullable=False),
    *_time("due_at", "last_run"),
    Column("screened", Boolean, nullable=False),
    _added("retry_delays", Text, "{}"),
)

# account_id repeats the transmission's and is detached with it: a plain column.
spool = _entity(
    "spool",
    _to("transmission_id", "transmission", required=True),
    _to("campaign_id", "campaign", gone="SET NULL"),
    Column("service", Integer, nullable=False),
    Column("account_id", Big),
    _to("provider_id", "provider", gone="SET NULL"),
    Column("node_id", Integer, nullable=False),
    *_text("destination", "status", "response", "disposition", "code"),
    Column("spooled_at", Big, nullable=False),
    *_time("started_at", "connected_at", "ended_at", "closes_at"),
    Column("amount_s", Float, nullable=False),
)

spool_result = _entity(
    "spool_result",
    _to("spool_id", "spool", required=True),
    *_text("type", "name", "data"),
)

# target_id is a transmission's or a campaign's, by ``type``; tasks go with their target.
task = _entity(
    "task",
    *_text("type", "action"),
    Column("target_id", Big, nullable=False),
    _to("account_id", "account", gone="SET NULL"),
    *_text("status", "year", "month", "day", "weekday", "hour", "minute", "timezone"),
    Column("recurring", Boolean, nullable=False),
    Column("weight", Integer, nullable=False),
    *_time("due_at", "expires_at", "last_run"),
    *_text("note"),
)

do_not_contact = _entity(
    "do_not_contact",
    *_text("address"),
    Column("service", Integer, nullable=False),
    *_text("reason"),
)

# Messages that came in, by what tells a second delivery of one from another one.
arrival = Table(
    "arrival",
    METADATA,
    Column("provider_id", Big, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),
    Column("at", Big, nullable=False),
    sqlite_with_rowid=False,
)

# One row, made with the store.
identity = Table(
    "identity",
    METADATA,
    Column("uid", LargeBinary(16), nullable=False),
    Column("born_at", Big, nullable=False),
)

campaign_tally = Table(
    "campaign_tally",
    METADATA,
    Column("campaign_id", Big, ForeignKey("campaign.id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Big, nullable=False),
    sqlite_with_rowid=False,
)

# The same for what an owner has; owner 0 stands for rows that nobody owns.
owner_tally = Table(
    "owner_tally",
    METADATA,
    Column("owner_id", Big, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("value", Big, nullable=False),
    sqlite_with_rowid=False,
)

PENDING = "status = 'pending'"
OPEN = "status IN ('initiated', 'connected')"
ATTACHED = "attachments <> '[]'"

Index("ux_usr_username", usr.c.username, unique=True)
_partial("ux_usr_email", usr.c.email, where="email <> ''", unique=True)
_partial("ux_account_username", account.c.type, account.c.username, where="username <> ''",
         unique=True)  # fmt: skip
Index("ux_role_name", role.c.name, unique=True)
Index("ux_permission_name", permission.c.name, unique=True)
Index("ux_revoked_token_jti", revoked_token.c.jti, unique=True)
Index("ux_subscription", subscription.c.account_id, subscription.c.program_id, unique=True)
Index("ix_subscription_program_id", subscription.c.program_id)
Index("ix_task_target", task.c.type, task.c.target_id)
_partial("ix_task_due_at", task.c.due_at, where=PENDING)
for _table in (
    usr, account, contact_group, recording, document, template, sms_text, program, provider,
    campaign, role, permission, task,
):  # fmt: skip
    Index(f"ux_{_table.name}_uid", _table.c.uid, unique=True)
for _table in (
    account, contact, contact_group, recording, document, template, sms_text, program, campaign,
    transmission, task,
):  # fmt: skip
    Index(f"ix_{_table.name}_owner_id", _table.c.owner_id)
Index("ix_arrival_at", arrival.c.at)
# Whose a number is that wrote to us, and which of ours it wrote to.
_partial("ix_contact_phone", contact.c.phone, where="phone <> ''")
_partial("ix_account_phone", account.c.phone, where="phone <> ''")
_partial("ix_contact_email", func.lower(contact.c.email), where="email <> ''")
_partial("ix_account_email", func.lower(account.c.email), where="email <> ''")
Index("ux_contact_link", contact_link.c.group_id, contact_link.c.contact_id, unique=True)
Index("ix_contact_link_order", contact_link.c.group_id, contact_link.c.link_id)
Index("ix_contact_link_contact_id", contact_link.c.contact_id)
# Whose a file is, without reading whole mails.
_partial("ix_template_attachments", template.c.attachments, where=ATTACHED)
Index("ix_program_parent_id", program.c.parent_id)
Index("ix_program_message_id", program.c.message_id)
Index("ix_campaign_program_id", campaign.c.program_id)
Index("ix_campaign_group_id", campaign.c.group_id)
Index("ix_campaign_account_id", campaign.c.account_id)
# The strongest guarantee against dialling somebody twice: one transmission a contact and campaign,
# one open spool a transmission, whatever a program error above may ask for.
_partial("ux_transmission_contact", transmission.c.campaign_id, transmission.c.contact_id,
         where="campaign_id IS NOT NULL", unique=True)  # fmt: skip
_partial("ux_spool_open", spool.c.transmission_id, where=OPEN, unique=True)
# Only spools that wait for a report have a closes_at: calls do not pay for this index.
_partial("ix_spool_closes_at", spool.c.closes_at, where=f"closes_at IS NOT NULL AND {OPEN}")
# One line an owner and address, and one for the whole node (NULLs are never alike).
_partial("ux_do_not_contact", do_not_contact.c.address, do_not_contact.c.owner_id,
         where="owner_id IS NOT NULL", unique=True)  # fmt: skip
_partial("ux_do_not_contact_node", do_not_contact.c.address, where="owner_id IS NULL", unique=True)
_partial("ix_transmission_pending", transmission.c.campaign_id, transmission.c.due_at,
         where=PENDING)  # fmt: skip
for _column in (
    transmission.c.contact_id, transmission.c.campaign_id, transmission.c.account_id,
    transmission.c.program_id, spool.c.transmission_id, spool.c.campaign_id, spool.c.provider_id,
    spool_result.c.spool_id,
):  # fmt: skip
    Index(f"ix_{_column.table.name}_{_column.name}", _column)

TABLES: dict[type[Entity], Table] = {
    User: usr,
    Account: account,
    Contact: contact,
    Group: contact_group,
    Recording: recording,
    Document: document,
    Template: template,
    SmsText: sms_text,
    Role: role,
    Permission: permission,
    RevokedToken: revoked_token,
    Subscription: subscription,
    Task: task,
    Program: program,
    Provider: provider,
    Campaign: campaign,
    Transmission: transmission,
    Spool: spool,
    SpoolResult: spool_result,
    DoNotContact: do_not_contact,
}
