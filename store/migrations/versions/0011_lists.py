"""Lists of jobs by feature, state and user; admins end and repeat their own jobs only.

Revision ID: 0011
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.get_bind().connection.cursor().execute((_SQL / "0011_lists.sql").read_text())
