"""The tables of the first release."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _entity() -> list[sa.Column[Any]]:
    return [
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("uid", sa.LargeBinary(length=16), nullable=False),
        sa.Column("owner_id", BIG, nullable=True),
        sa.Column("created_at", BIG, nullable=False),
        sa.Column("updated_at", BIG, nullable=False),
    ]


def _text(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _account() -> None:
    op.create_table(
        "account",
        *_entity(),
        *_text(
            "type",
            "username",
            "passwd",
            "passwd_pin",
            "first_name",
            "last_name",
            "phone",
            "email",
            "address",
            "settings",
        ),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_account_owner_id", "account", ["owner_id"], unique=False)
    op.create_index("ux_account_uid", "account", ["uid"], unique=True)
    op.create_index(
        "ux_account_username",
        "account",
        ["type", "username"],
        unique=True,
        sqlite_where=sa.text("username <> ''"),
        postgresql_where=sa.text("username <> ''"),
    )


def _contact() -> None:
    op.create_table(
        "contact",
        *_entity(),
        *_text(
            "first_name",
            "last_name",
            "phone",
            "email",
            "address",
            "custom1",
            "custom2",
            "custom3",
            "description",
        ),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_contact_owner_id", "contact", ["owner_id"], unique=False)


def _contact_group() -> None:
    op.create_table(
        "contact_group",
        *_entity(),
        *_text("name", "description"),
        sa.Column("contact_total", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_contact_group_owner_id", "contact_group", ["owner_id"], unique=False)
    op.create_index("ux_contact_group_uid", "contact_group", ["uid"], unique=True)


def _owner_tally() -> None:
    op.create_table(
        "owner_tally",
        sa.Column("owner_id", BIG, autoincrement=False, nullable=False),
        *_text("name"),
        sa.Column("value", BIG, nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "name"),
        sqlite_with_rowid=False,
    )


def _program() -> None:
    op.create_table(
        "program",
        *_entity(),
        *_text("name", "type", "data"),
        sa.Column("parent_id", BIG, nullable=True),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["program.id"], name=op.f("fk_program_parent_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_program_owner_id", "program", ["owner_id"], unique=False)
    op.create_index("ix_program_parent_id", "program", ["parent_id"], unique=False)
    op.create_index("ux_program_uid", "program", ["uid"], unique=True)


def _provider() -> None:
    op.create_table(
        "provider",
        *_entity(),
        *_text("name", "type"),
        sa.Column("service", sa.Integer(), nullable=False),
        *_text("host"),
        sa.Column("port", sa.Integer(), nullable=False),
        *_text(
            "transport", "username", "password", "dialstring", "prefix", "settings", "description"
        ),
        sa.Column("register", sa.Boolean(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("node_id", sa.Integer(), nullable=False),
        sa.Column("calls_per_second", sa.Float(), nullable=False),
        sa.Column("channels", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ux_provider_uid", "provider", ["uid"], unique=True)


def _recording() -> None:
    op.create_table(
        "recording",
        *_entity(),
        *_text("name", "description", "type", "media_path", "original_path", "original_type"),
        sa.Column("length_s", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_recording_owner_id", "recording", ["owner_id"], unique=False)
    op.create_index("ux_recording_uid", "recording", ["uid"], unique=True)


def _usr() -> None:
    op.create_table(
        "usr",
        *_entity(),
        *_text(
            "username",
            "password_hash",
            "first_name",
            "last_name",
            "phone",
            "email",
            "address",
            "company",
        ),
        sa.Column("active", sa.Boolean(), nullable=False),
        *_text("roles"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ux_usr_email",
        "usr",
        ["email"],
        unique=True,
        sqlite_where=sa.text("email <> ''"),
        postgresql_where=sa.text("email <> ''"),
    )
    op.create_index("ux_usr_uid", "usr", ["uid"], unique=True)
    op.create_index("ux_usr_username", "usr", ["username"], unique=True)


def _campaign() -> None:
    op.create_table(
        "campaign",
        *_entity(),
        sa.Column("program_id", BIG, nullable=False),
        sa.Column("group_id", BIG, nullable=False),
        sa.Column("account_id", BIG, nullable=True),
        sa.Column("calls_per_minute", sa.Float(), nullable=False),
        sa.Column("try_allowed", sa.Integer(), nullable=False),
        *_text("status", "source"),
        sa.Column("cursor", BIG, nullable=False),
        sa.Column("last_run", BIG, nullable=True),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_campaign_account_id")
        ),
        sa.ForeignKeyConstraint(
            ["group_id"], ["contact_group.id"], name=op.f("fk_campaign_group_id")
        ),
        sa.ForeignKeyConstraint(
            ["program_id"], ["program.id"], name=op.f("fk_campaign_program_id")
        ),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_campaign_account_id", "campaign", ["account_id"], unique=False)
    op.create_index("ix_campaign_group_id", "campaign", ["group_id"], unique=False)
    op.create_index("ix_campaign_owner_id", "campaign", ["owner_id"], unique=False)
    op.create_index("ix_campaign_program_id", "campaign", ["program_id"], unique=False)
    op.create_index("ux_campaign_uid", "campaign", ["uid"], unique=True)


def _contact_link() -> None:
    op.create_table(
        "contact_link",
        sa.Column("link_id", BIG, autoincrement=True, nullable=False),
        sa.Column("group_id", BIG, nullable=False),
        sa.Column("contact_id", BIG, nullable=False),
        sa.ForeignKeyConstraint(
            ["contact_id"],
            ["contact.id"],
            name=op.f("fk_contact_link_contact_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["group_id"],
            ["contact_group.id"],
            name=op.f("fk_contact_link_group_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("link_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_contact_link_contact_id", "contact_link", ["contact_id"], unique=False)
    op.create_index("ix_contact_link_order", "contact_link", ["group_id", "link_id"], unique=False)
    op.create_index("ux_contact_link", "contact_link", ["group_id", "contact_id"], unique=True)


def _campaign_tally() -> None:
    op.create_table(
        "campaign_tally",
        sa.Column("campaign_id", BIG, nullable=False),
        *_text("name"),
        sa.Column("value", BIG, nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"],
            ["campaign.id"],
            name=op.f("fk_campaign_tally_campaign_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("campaign_id", "name"),
        sqlite_with_rowid=False,
    )


def _transmission() -> None:
    op.create_table(
        "transmission",
        *_entity(),
        *_text("title"),
        sa.Column("service", sa.Integer(), nullable=False),
        sa.Column("program_id", BIG, nullable=False),
        sa.Column("account_id", BIG, nullable=True),
        sa.Column("contact_id", BIG, nullable=False),
        sa.Column("campaign_id", BIG, nullable=True),
        *_text("origin", "direction", "status", "response"),
        sa.Column("try_allowed", sa.Integer(), nullable=False),
        sa.Column("try_done", sa.Integer(), nullable=False),
        sa.Column("due_at", BIG, nullable=True),
        sa.Column("last_run", BIG, nullable=True),
        sa.Column("screened", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["account.id"],
            name=op.f("fk_transmission_account_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["campaign_id"],
            ["campaign.id"],
            name=op.f("fk_transmission_campaign_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["contact_id"], ["contact.id"], name=op.f("fk_transmission_contact_id")
        ),
        sa.ForeignKeyConstraint(
            ["program_id"], ["program.id"], name=op.f("fk_transmission_program_id")
        ),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_transmission_account_id", "transmission", ["account_id"], unique=False)
    op.create_index("ix_transmission_campaign_id", "transmission", ["campaign_id"], unique=False)
    op.create_index("ix_transmission_contact_id", "transmission", ["contact_id"], unique=False)
    op.create_index("ix_transmission_owner_id", "transmission", ["owner_id"], unique=False)
    op.create_index(
        "ix_transmission_pending",
        "transmission",
        ["campaign_id", "due_at"],
        unique=False,
        sqlite_where=sa.text("status = 'pending'"),
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index("ix_transmission_program_id", "transmission", ["program_id"], unique=False)
    op.create_index(
        "ux_transmission_contact",
        "transmission",
        ["campaign_id", "contact_id"],
        unique=True,
        sqlite_where=sa.text("campaign_id IS NOT NULL"),
        postgresql_where=sa.text("campaign_id IS NOT NULL"),
    )


def _spool() -> None:
    op.create_table(
        "spool",
        *_entity(),
        sa.Column("transmission_id", BIG, nullable=False),
        sa.Column("campaign_id", BIG, nullable=True),
        sa.Column("service", sa.Integer(), nullable=False),
        sa.Column("account_id", BIG, nullable=True),
        sa.Column("provider_id", BIG, nullable=True),
        sa.Column("node_id", sa.Integer(), nullable=False),
        *_text("destination", "status", "response", "disposition", "code"),
        sa.Column("spooled_at", BIG, nullable=False),
        sa.Column("started_at", BIG, nullable=True),
        sa.Column("connected_at", BIG, nullable=True),
        sa.Column("ended_at", BIG, nullable=True),
        sa.Column("amount_s", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaign.id"], name=op.f("fk_spool_campaign_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["provider.id"], name=op.f("fk_spool_provider_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["transmission_id"], ["transmission.id"], name=op.f("fk_spool_transmission_id")
        ),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_spool_campaign_id", "spool", ["campaign_id"], unique=False)
    op.create_index("ix_spool_provider_id", "spool", ["provider_id"], unique=False)
    op.create_index("ix_spool_transmission_id", "spool", ["transmission_id"], unique=False)
    op.create_index(
        "ux_spool_open",
        "spool",
        ["transmission_id"],
        unique=True,
        sqlite_where=sa.text("status IN ('initiated', 'connected')"),
        postgresql_where=sa.text("status IN ('initiated', 'connected')"),
    )


def _spool_result() -> None:
    op.create_table(
        "spool_result",
        *_entity(),
        sa.Column("spool_id", BIG, nullable=False),
        *_text("type", "name", "data"),
        sa.ForeignKeyConstraint(["spool_id"], ["spool.id"], name=op.f("fk_spool_result_spool_id")),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_spool_result_spool_id", "spool_result", ["spool_id"], unique=False)


def upgrade() -> None:
    _account()
    _contact()
    _contact_group()
    _owner_tally()
    _program()
    _provider()
    _recording()
    _usr()
    _campaign()
    _contact_link()
    _campaign_tally()
    _transmission()
    _spool()
    _spool_result()
