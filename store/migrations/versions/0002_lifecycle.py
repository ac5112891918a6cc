"""Crash safety: lanes, suspects, retries as new jobs, idempotency keys, a cap per feature.

Revision ID: 0002
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.get_bind().connection.cursor().execute((_SQL / "0002_lifecycle.sql").read_text())
