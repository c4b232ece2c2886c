"""Which store this is, so that it is not taken for the one that a folder of files belongs to."""

from __future__ import annotations

import time
from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_FIRST = ("usr", "account", "contact_group", "recording", "document", "template", "program")


def upgrade() -> None:
    identity = op.create_table(
        "identity",
        sa.Column("uid", sa.LargeBinary(length=16), nullable=False),
        sa.Column("born_at", BIG, nullable=False),
    )
    op.bulk_insert(identity, [{"uid": uuid4().bytes, "born_at": _born_at()}])


def _born_at() -> int:
    """A store that is there already is as old as the first of what somebody made in it."""
    at = sa.func.min(sa.column("created_at", BIG)).label("at")
    made = sa.union_all(*(sa.select(at).select_from(sa.table(name)) for name in _FIRST)).subquery()
    first = op.get_bind().scalar(sa.select(sa.func.min(made.c.at)))
    return time.time_ns() // 1000 if first is None else int(first)
