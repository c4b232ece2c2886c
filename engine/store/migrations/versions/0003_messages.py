"""Spools that wait for a report, texts with a class and a validity, who must not be contacted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_WAITING = sa.text("closes_at IS NOT NULL AND status IN ('initiated', 'connected')")


def upgrade() -> None:
    op.add_column("spool", sa.Column("closes_at", BIG, nullable=True))
    op.create_index(
        "ix_spool_closes_at", "spool", ["closes_at"], sqlite_where=_WAITING,
        postgresql_where=_WAITING,
    )  # fmt: skip
    op.add_column("sms_text", sa.Column("flash", sa.Boolean(), server_default="0", nullable=False))
    op.add_column(
        "sms_text", sa.Column("validity_s", sa.Float(), server_default="0", nullable=False)
    )
    _do_not_contact()
    _arrival()
    _phones()


def _do_not_contact() -> None:
    op.create_table(
        "do_not_contact",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("uid", sa.LargeBinary(length=16), nullable=False),
        sa.Column("owner_id", BIG, nullable=True),
        sa.Column("created_at", BIG, nullable=False),
        sa.Column("updated_at", BIG, nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("service", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    _unique("ux_do_not_contact", ["address", "owner_id"], "owner_id IS NOT NULL")
    _unique("ux_do_not_contact_node", ["address"], "owner_id IS NULL")


def _unique(name: str, columns: list[str], where: str) -> None:
    op.create_index(
        name, "do_not_contact", columns, unique=True, sqlite_where=sa.text(where),
        postgresql_where=sa.text(where),
    )  # fmt: skip


def _arrival() -> None:
    op.create_table(
        "arrival",
        sa.Column("provider_id", BIG, autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("at", BIG, nullable=False),
        sa.PrimaryKeyConstraint("provider_id", "key"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_arrival_at", "arrival", ["at"])


def _phones() -> None:
    written = sa.text("phone <> ''")
    for table in ("contact", "account"):
        op.create_index(
            f"ix_{table}_phone", table, ["phone"], sqlite_where=written, postgresql_where=written
        )
