"""Which files of the media folder are attachments, without reading whole mails."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    some = sa.text("attachments <> '[]'")
    op.create_index(
        "ix_template_attachments", "template", ["attachments"], sqlite_where=some,
        postgresql_where=some,
    )  # fmt: skip
