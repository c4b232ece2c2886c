"""Users' roles and permissions, messages of every kind, schedules, retry delays."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
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


def _document() -> None:
    op.create_table(
        "document",
        *_entity(),
        *_text(
            "name", "description", "type", "quality", "media_path", "original_path", "original_type"
        ),
        sa.Column("pages", sa.Integer(), nullable=False),
        sa.Column("size_x", sa.Float(), nullable=False),
        sa.Column("size_y", sa.Float(), nullable=False),
        sa.Column("resolution_x", sa.Integer(), nullable=False),
        sa.Column("resolution_y", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_document_owner_id", "document", ["owner_id"], unique=False)
    op.create_index("ux_document_uid", "document", ["uid"], unique=True)


def _permission() -> None:
    op.create_table(
        "permission",
        *_entity(),
        *_text("name", "description"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ux_permission_name", "permission", ["name"], unique=True)
    op.create_index("ux_permission_uid", "permission", ["uid"], unique=True)


def _revoked_token() -> None:
    op.create_table(
        "revoked_token",
        *_entity(),
        *_text("jti"),
        sa.Column("expires_at", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ux_revoked_token_jti", "revoked_token", ["jti"], unique=True)


def _role() -> None:
    op.create_table(
        "role",
        *_entity(),
        *_text("name", "description", "permissions"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ux_role_name", "role", ["name"], unique=True)
    op.create_index("ux_role_uid", "role", ["uid"], unique=True)


def _sms_text() -> None:
    op.create_table(
        "sms_text",
        *_entity(),
        *_text("name", "description", "type", "data"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_sms_text_owner_id", "sms_text", ["owner_id"], unique=False)
    op.create_index("ux_sms_text_uid", "sms_text", ["uid"], unique=True)


def _template() -> None:
    op.create_table(
        "template",
        *_entity(),
        *_text("name", "description", "type", "subject", "body", "body_alt", "attachments"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_template_owner_id", "template", ["owner_id"], unique=False)
    op.create_index("ux_template_uid", "template", ["uid"], unique=True)


def _subscription() -> None:
    op.create_table(
        "subscription",
        *_entity(),
        sa.Column("account_id", BIG, nullable=False),
        sa.Column("program_id", BIG, nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"],
            ["account.id"],
            name=op.f("fk_subscription_account_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["program_id"],
            ["program.id"],
            name=op.f("fk_subscription_program_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_subscription_program_id", "subscription", ["program_id"], unique=False)
    op.create_index("ux_subscription", "subscription", ["account_id", "program_id"], unique=True)


def _task() -> None:
    op.create_table(
        "task",
        *_entity(),
        *_text("type", "action"),
        sa.Column("target_id", BIG, nullable=False),
        sa.Column("account_id", BIG, nullable=True),
        *_text("status", "year", "month", "day", "weekday", "hour", "minute", "timezone"),
        sa.Column("recurring", sa.Boolean(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("due_at", BIG, nullable=True),
        sa.Column("expires_at", BIG, nullable=True),
        sa.Column("last_run", BIG, nullable=True),
        *_text("note"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name=op.f("fk_task_account_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_task_due_at",
        "task",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("status = 'pending'"),
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index("ix_task_owner_id", "task", ["owner_id"], unique=False)
    op.create_index("ix_task_target", "task", ["type", "target_id"], unique=False)
    op.create_index("ux_task_uid", "task", ["uid"], unique=True)


def _columns() -> None:
    op.add_column("account", sa.Column("timezone", sa.Text(), server_default="", nullable=False))
    op.add_column(
        "campaign", sa.Column("retry_delays", sa.Text(), server_default="{}", nullable=False)
    )
    op.add_column(
        "transmission", sa.Column("retry_delays", sa.Text(), server_default="{}", nullable=False)
    )
    op.add_column("usr", sa.Column("country_id", sa.Integer(), nullable=True))
    op.add_column("usr", sa.Column("language_id", sa.Text(), server_default="", nullable=False))
    op.add_column("usr", sa.Column("timezone_id", sa.Integer(), nullable=True))
    op.add_column("usr", sa.Column("permissions", sa.Text(), server_default="[]", nullable=False))
    op.add_column("usr", sa.Column("tokens_from", BIG, nullable=True))
    op.add_column("program", sa.Column("message_id", BIG, nullable=True))
    # Until now there were voice messages only, and SQLite.
    op.execute("UPDATE program SET message_id = json_extract(data, '$.recording_id')")
    op.create_index("ix_program_message_id", "program", ["message_id"], unique=False)


def _tallies() -> None:
    op.execute(
        "INSERT INTO owner_tally (owner_id, name, value) "
        "SELECT coalesce(owner_id, 0), 'contact_total', count(*) FROM contact "
        "GROUP BY coalesce(owner_id, 0)"
    )


def _contacts_may_go() -> None:
    """A contact can be deleted; its transmissions stay, of nobody."""
    last_id = op.get_bind().exec_driver_sql(_LAST_ID).scalar() or 0
    with op.batch_alter_table(
        "transmission", recreate="always", table_kwargs={"sqlite_autoincrement": True}
    ) as batch:
        batch.alter_column("contact_id", existing_type=BIG, nullable=True)
        batch.drop_constraint("fk_transmission_contact_id", type_="foreignkey")
        batch.create_foreign_key(
            "fk_transmission_contact_id", "contact", ["contact_id"], ["id"], ondelete="SET NULL"
        )
    # An id is never given twice, also of rows that are gone.
    op.get_bind().exec_driver_sql(
        "UPDATE sqlite_sequence SET seq = ? WHERE name = 'transmission'", (last_id,)
    )


_LAST_ID = "SELECT seq FROM sqlite_sequence WHERE name = 'transmission'"


def upgrade() -> None:
    _contacts_may_go()
    _document()
    _permission()
    _revoked_token()
    _role()
    _sms_text()
    _template()
    _subscription()
    _task()
    _tallies()
    _columns()
