"""Browsers: sessions that a cookie holds.

Revision ID: 0010
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.get_bind().connection.cursor().execute((_SQL / "0010_browser.sql").read_text())
