"""Lists of finished jobs by the provider that served them; what waits in a lane for its time.

Revision ID: 0014
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"


def upgrade() -> None:
    op.get_bind().connection.cursor().execute((_SQL / "0014_providers.sql").read_text())
