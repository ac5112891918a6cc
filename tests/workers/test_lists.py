"""Lists of jobs: every page is what a look at all jobs would show, and reads little more than it shows."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from store.database import Identity, Role, conninfo
from store.settings import Settings
from tests.usage_rows import with_days
from workers import lists
from workers.records import JobFilter

NOW = datetime.now(UTC)
DAYS = 12
FEATURES = ("tarot_reading", "cv_draft", "chat_assistant")
USERS = (None, "ann", "Ann", "50%", "b_b", "Zoë 😀", "x" * 801, "ö" * 400)
TOKENS = (None, UUID(int=1), UUID(int=2))
ADMINS = (None, UUID(int=3))
TEXTS = ("Aries", "the Fool", "100% sure", "under_score", "back\\slash", "Ünï", "")
CLASSES = ("timeout", "auth")
PROVIDERS = ("acme", "other")
STATES = ("queued", "running", "succeeded", "failed", "cancelled")

Database = psycopg.Connection[DictRow]


@dataclass(frozen=True)
class Made:
    """A job as it was written."""

    id: UUID
    state: str
    feature: str
    user_id: str | None
    token_id: UUID | None
    caller_admin_id: UUID | None
    input: Mapping[str, Any]
    error_class: str | None
    error_message: str | None
    provider: str | None
    made_at: datetime

    def fits(self, chosen: JobFilter) -> bool:
        exact = ("feature", "state", "user_id", "token_id", "caller_admin_id", "error_class", "provider")
        return (
            all(getattr(chosen, name) in (None, getattr(self, name)) for name in exact)
            and (chosen.since is None or self.made_at >= chosen.since)
            and (chosen.until is None or self.made_at < chosen.until)
            and (chosen.q is None or self._says(chosen.q))
        )

    def _says(self, q: str) -> bool:
        texts = (
            *(str(self.id), self.user_id, self.error_message),
            json.dumps(self.input, ensure_ascii=False),  # what is searched in is written as JSON
        )
        return any(q.lower() in text.lower() for text in texts if text is not None)


@pytest.fixture
def owner(settings: Settings) -> Iterator[Database]:
    with psycopg.connect(settings.database(), autocommit=True, row_factory=dict_row) as db:
        with_days(db, DAYS + 2)
        yield db


def being(settings: Settings, identity: Identity | Role) -> Database:
    return psycopg.connect(conninfo(settings.database(), identity), autocommit=True, row_factory=dict_row)


def any_jobs(count: int) -> list[Made]:
    """Jobs of twelve days, some made in the same millisecond."""
    chance = random.Random(11)
    jobs = []
    for _ in range(count):
        milliseconds = chance.randrange(DAYS * 86_400_000) // 700_000 * 700_000
        made_at = datetime.fromtimestamp(int(NOW.timestamp()), UTC) - timedelta(milliseconds=milliseconds + 1)
        number = (
            int(made_at.timestamp() * 1000) << 80 | 7 << 76 | chance.getrandbits(76) & ~(3 << 62) | 2 << 62
        )
        jobs.append(
            Made(
                id=UUID(int=number),
                state=chance.choices(STATES, [3, 1, 8, 2, 1])[0],
                feature=chance.choice(FEATURES),
                user_id=chance.choice(USERS),
                token_id=chance.choice(TOKENS),
                caller_admin_id=chance.choice(ADMINS),
                input={"text": chance.choice(TEXTS)},
                error_class=chance.choice((None, *CLASSES)),
                error_message=chance.choice((None, "No 100% luck", "timeout")),
                provider=chance.choice((None, *PROVIDERS)),
                made_at=made_at,
            )
        )
    return [Made(**_members(job) | dict.fromkeys(_UNKNOWN.get(job.state, ()))) for job in jobs]


_UNKNOWN = {
    **dict.fromkeys(("queued", "running"), ("error_class", "error_message", "provider")),
    "succeeded": ("error_class", "error_message"),
}
"""What a job in this state has not."""


def _members(job: Made) -> dict[str, Any]:
    return {field.name: getattr(job, field.name) for field in fields(job)}


def write(db: Database, jobs: list[Made]) -> None:
    """As they would be: what has ended did so up to three days later, in any order."""
    chance = random.Random(12)
    for job in jobs:
        row = {
            **_members(job),
            "capability": "text",
            "lane": "batch",
            "priority": 0,
            "metadata": Jsonb({}),
            "input": Jsonb(job.input),
            "created_at": job.made_at,
            "run_at": job.made_at,
            "run": 0,
            "retries": 0,
            "calls": 0,
        }
        del row["made_at"]
        table = "jobs"
        if job.state in STATES[2:]:
            table = "job_history"
            row["finished_at"] = min(NOW, job.made_at + timedelta(hours=chance.randrange(72)))
        else:
            del row["error_class"], row["error_message"], row["provider"]
        names = ", ".join(row)
        values = ", ".join(f"%({name})s" for name in row)
        db.execute(f"INSERT INTO {table} ({names}) VALUES ({values})".encode(), row)


def any_filter(chance: random.Random, jobs: list[Made]) -> JobFilter:
    """Some of the members, each of which mostly has a value that occurs."""
    span = sorted(NOW - timedelta(hours=chance.randrange(-30, DAYS * 24 + 30)) for _ in range(2))
    values: dict[str, Any] = {
        "feature": chance.choice([*FEATURES, "nothing"]),
        "state": chance.choice(STATES),
        "user_id": chance.choice([*USERS[1:], "nobody"]),
        "q": chance.choice(
            [*filter(None, TEXTS), "100%", "ANN", "%", "_", "\\", "nothing", str(jobs[0].id)[:13]]
        ),
        "token_id": chance.choice([*TOKENS[1:], uuid4()]),
        "caller_admin_id": ADMINS[1],
        "error_class": chance.choice([*CLASSES, "nothing"]),
        "provider": chance.choice([*PROVIDERS, "nothing"]),
        "since": span[0].replace(microsecond=0),
        "until": span[1].replace(microsecond=0),
    }
    return JobFilter(**{name: value for name, value in values.items() if chance.random() < 0.3})


def pages(db: Database, chosen: JobFilter, limit: int) -> list[UUID]:
    """Ids of all pages."""
    seen: list[UUID] = []
    before = None
    while True:
        found = lists.search(db, chosen, limit=limit, before=before, seconds=0)
        assert len(found.jobs) <= limit
        seen += [job.id for job in found.jobs]
        if found.before is None:
            return seen
        assert before is None or found.before < before
        before = found.before


def test_pages_are_what_a_look_at_all_jobs_shows(
    owner: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "_AT_ONCE", 40)
    jobs = sorted(any_jobs(600), key=lambda job: job.id, reverse=True)
    write(owner, jobs)
    chance = random.Random(13)
    with being(settings, Role.CLIENT) as db:
        for _ in range(250):
            chosen, limit = any_filter(chance, jobs), chance.choice([1, 3, 50, 200])
            fitting = [job.id for job in jobs if job.fits(chosen)]
            assert pages(db, chosen, limit) == fitting, chosen
            before = chance.choice(jobs).id
            older = [id_ for id_ in fitting if id_ < before]
            assert [job.id for job in lists.page(db, chosen, limit=limit, before=before)] == older[:limit]
            states = {job.id: job.state for job in jobs}
            live = [id_ for id_ in older if states[id_] in ("queued", "running")]
            assert lists.unfinished(db, chosen, limit=limit, before=before) == live[:limit], chosen


def test_a_whole_id_finds_its_job_alone(owner: Database, settings: Settings) -> None:
    first, second, *_ = jobs = any_jobs(20)
    said = Made(**{**_members(second), "input": {"text": f"again: {first.id}"}})
    nobodys = uuid4()
    about = Made(**{**_members(jobs[2]), "input": {"text": f"order {nobodys}"}})
    write(owner, [first, said, about, *jobs[3:]])
    with being(settings, Role.CLIENT) as db:

        def found(q: object, **others: Any) -> list[UUID]:
            return pages(db, JobFilter(q=str(q), **others), 5)

        assert found(first.id) == found(str(first.id).upper()) == [first.id]
        assert found(first.id, feature="nothing") == []
        assert found(first.id, feature=said.feature, state=said.state) == (
            [first.id] if first.fits(JobFilter(feature=said.feature, state=said.state)) else [said.id]
        )
        assert found(nobodys) == [about.id], "an id of something else is a text"
        assert found(UUID(int=2**128 - 1)) == []


COUNT = 6000
# Half of them in the newest partition; whoever is rare is so on each day.
_FILL = """
INSERT INTO job_history (
    id, feature, capability, lane, priority, state, error_class, input, user_id, token_id, provider, metadata,
    created_at, run_at, finished_at, run, retries, calls)
SELECT (lpad(to_hex((extract(epoch FROM ended) * 1000)::bigint), 12, '0') || '7'
        || right(md5(n::text), 19))::uuid,
    CASE WHEN n %% 200 = 7 THEN 'cv_draft' ELSE 'tarot_reading' END, 'text', 'batch', 0,
    CASE WHEN n %% 100 = 0 THEN 'failed' ELSE 'succeeded' END,
    CASE WHEN n %% 100 = 0 THEN 'timeout' END, '{}',
    CASE WHEN n %% 500 = 3 THEN 'rare' WHEN n %% 2 = 0 THEN 'often' END,
    CASE WHEN n %% 300 = 5 THEN %(rare)s::uuid ELSE %(often)s END,
    CASE WHEN n %% 400 = 9 THEN 'rare' WHEN n %% 10 > 0 THEN 'often' END, '{}', ended, ended, ended, 1, 0, 1
FROM (
    SELECT n, now() - random() * CASE WHEN n %% 2 = 0 THEN interval '1 s' ELSE interval '9 days' END AS ended
    FROM generate_series(1, %(count)s) AS n
) AS moments"""
RARE, OFTEN, UNUSED = UUID(int=1), UUID(int=2), UUID(int=3)

LISTS = [
    JobFilter(),
    JobFilter(state="succeeded"),
    JobFilter(state="queued"),
    JobFilter(state="failed"),
    JobFilter(state="cancelled"),
    JobFilter(state="failed", feature="cv_draft"),
    JobFilter(state="failed", token_id=RARE),
    JobFilter(error_class="timeout"),
    JobFilter(error_class="auth"),
    JobFilter(error_class="timeout", state="cancelled"),
    JobFilter(error_class="timeout", feature="cv_draft"),
    JobFilter(error_class="timeout", token_id=RARE),
    JobFilter(feature="tarot_reading"),
    JobFilter(feature="cv_draft"),
    JobFilter(feature="nothing"),
    JobFilter(user_id="often"),
    JobFilter(user_id="rare"),
    JobFilter(user_id="nobody"),
    JobFilter(user_id="rare", feature="cv_draft", state="succeeded"),
    JobFilter(provider="often"),
    JobFilter(provider="rare"),
    JobFilter(provider="nothing"),
    JobFilter(provider="often", feature="nothing"),
    JobFilter(token_id=RARE),
    JobFilter(token_id=OFTEN),
    JobFilter(token_id=UNUSED),
]


def test_a_page_reads_little_more_than_it_shows(owner: Database, settings: Settings) -> None:
    """Even by a plan that was made while there was nothing yet, and without statistics."""
    limit, partitions = 20, DAYS + 2 + 15
    with ExitStack() as opened:
        people = opened.enter_context(being(settings, Identity(Role.ADMIN, uuid4())))
        applications = {
            id_: opened.enter_context(being(settings, Identity(Role.APPLICATION, None, id_)))
            for id_ in (RARE, OFTEN, UNUSED)
        }
        asked = [(people if one.token_id is None else applications[one.token_id], one) for one in LISTS]
        for db, chosen in asked * 8:
            assert lists.search(db, chosen, limit=limit, before=None, seconds=0).jobs == []
        owner.execute(_FILL, {"count": COUNT, "rare": RARE, "often": OFTEN})
        wrong = {}
        for db, chosen in asked:
            with db.transaction():
                before = _rows_read(db)
                found = lists.search(db, chosen, limit=limit, before=None, seconds=0)
                read = _rows_read(db) - before
            assert len(found.jobs) == min(limit, _fitting(owner, chosen))
            if read > limit + 1 + partitions:
                wrong[chosen] = f"read {read} rows to show {len(found.jobs)}"
    assert wrong == {}


def _rows_read(db: Database) -> int:
    """Of jobs, by this connection: PostgreSQL counts them in the transaction's statistics."""
    [row] = db.execute(
        "SELECT coalesce(sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)), 0)::int AS rows "
        "FROM pg_stat_xact_user_tables WHERE relname LIKE 'job%'"
    ).fetchall()
    return int(row["rows"])


def _fitting(owner: Database, chosen: JobFilter) -> int:
    values = {field.name: getattr(chosen, field.name) for field in fields(chosen)}
    wanted = [f"{name} = %({name})s" for name, value in values.items() if value is not None] or ["true"]
    query = f"SELECT count(*) AS jobs FROM job_history WHERE {' AND '.join(wanted)}"
    [row] = owner.execute(query.encode(), values).fetchall()
    return int(row["jobs"])
