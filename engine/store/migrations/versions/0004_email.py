"""Whose an e-mail address is that wrote to us, and which of ours it wrote to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    written = sa.text("email <> ''")
    for table in ("contact", "account"):
        op.create_index(
            f"ix_{table}_email", table, [sa.text("lower(email)")], sqlite_where=written,
            postgresql_where=written,
        )  # fmt: skip
