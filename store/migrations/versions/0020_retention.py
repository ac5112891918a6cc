"""How long jobs and calls are kept.

Revision ID: 0020
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.get_bind().connection.cursor().execute((_SQL / "0020_retention.sql").read_text())
