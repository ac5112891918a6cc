"""The main job: configuration, people, jobs, history, roles and the built-in features.

Revision ID: 0001
"""

from __future__ import annotations

import json
from pathlib import Path

from alembic import op
from sqlalchemy import text

from store.ids import new_id

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SQL = Path(__file__).parent.parent / "sql"

_ADD_FEATURE = text(
    "INSERT INTO features (id, name, category, description, capability, lane, input_schema) "
    "VALUES (:id, :name, :category, :description, :capability, :lane, CAST(:schema AS jsonb))"
)


def upgrade() -> None:
    connection = op.get_bind()
    for part in ("configuration", "jobs", "roles"):
        # The driver itself, without parameters: the scripts hold `%` and several statements each.
        connection.connection.cursor().execute((_SQL / f"0001_{part}.sql").read_text())
    features = json.loads((_SQL / "0001_features.json").read_text())
    for feature in features:
        schema = json.dumps(feature.pop("input_schema"), ensure_ascii=False)
        connection.execute(_ADD_FEATURE, {**feature, "id": new_id(), "schema": schema})
