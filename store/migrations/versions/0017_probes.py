"""Probes of providers, and alerts about days that cost more than usual.

Revision ID: 0017
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.get_bind().connection.cursor().execute((_SQL / "0017_probes.sql").read_text())
