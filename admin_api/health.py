"""Probes for whoever supervises the process."""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from admin_api.errors import PROBLEM_RESPONSES, RETRY_AFTER_SECONDS, problem
from admin_api.services import Services, Using
from store.database import UNAVAILABLE
from store.tables import Base

router = APIRouter(tags=["health"])

_COLUMNS = """
SELECT relname, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
WHERE relnamespace = current_schema()::regnamespace AND attnum > 0 AND NOT attisdropped
  AND relname = ANY (%s)"""


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """`degraded`: jobs are taken, but start later, since their doorbells cannot be rung."""

    status: Literal["ok", "degraded"]
    postgresql: Literal["ok"] = "ok"
    redis: Literal["ok", "unavailable"]


@router.get("/healthz")
async def healthz() -> Alive:
    """Whether the process lives; asks nobody else."""
    return Alive()


@router.get("/readyz", responses={"503": PROBLEM_RESPONSES["503"]}, response_model=Ready)
def readyz(using: Using) -> Ready | Response:
    """Whether the process can serve: PostgreSQL answers and is migrated. Redis may be missing."""
    try:
        missing = _missing(using)
    except UNAVAILABLE:
        return _not_ready("PostgreSQL does not answer.")
    if missing:
        return _not_ready(f"The database lacks {missing[0]}. Run `orrery migrate`.")
    if using.doorbells.answers():
        return Ready(status="ok", redis="ok")
    return Ready(status="degraded", redis="unavailable")


def _missing(using: Services) -> list[str]:
    """Columns that this release maps and the database does not have.

    The catalogue is asked rather than Alembic's table: every role may read it.
    """
    with using.pool.connection() as db:
        columns = db.execute(_COLUMNS, [list(Base.metadata.tables)])
        present = {(row["relname"], row["attname"]) for row in columns}
    mapped = {
        (table.name, column.name) for table in Base.metadata.tables.values() for column in table.columns
    }
    return [f"{table}.{column}" for table, column in sorted(mapped - present)]


def _not_ready(detail: str) -> Response:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
