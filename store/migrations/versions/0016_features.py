"""Job advertisements also as pictures and pages; examples that need no network.

Revision ID: 0016
"""

from __future__ import annotations

import json
from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"

# What the first migration writes today, in place of what it wrote before. What somebody has changed stays.
_CHANGE = text(
    "UPDATE features SET input_schema = CAST(:new AS jsonb) "
    "WHERE name = :name AND input_schema = CAST(:old AS jsonb)"
)


def upgrade() -> None:
    shipped = {row["name"]: row for row in json.loads((_SQL / "0001_features.json").read_text())}
    for name, old in json.loads((_SQL / "0016_features.json").read_text()).items():
        new = json.dumps(shipped[name]["input_schema"])
        op.get_bind().execute(_CHANGE, {"name": name, "old": json.dumps(old), "new": new})
