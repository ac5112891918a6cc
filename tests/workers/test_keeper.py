"""What is too old goes, with its artifacts, and nothing else; what features do not keep is erased."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from routing.errors import InputRejected
from store.database import Pool
from store.ids import new_id
from store.settings import Settings
from tests.rows import Rows
from tests.sandbox import Sandbox
from tests.usage_rows import call, record, with_days
from tests.workers.conftest import until
from workers import rollup
from workers.artifacts import Artifacts
from workers.client import Client
from workers.keeper import Keeper
from workers.records import Job
from workers.run import WorkerProcess
from workers.scheduling import SchedulerProcess

Owner = psycopg.Connection[dict[str, Any]]

CANARY = "Ada Lovelace, 12 St James's Square"
TEXT, SPEECH = "daily_zodiac_text", "daily_zodiac_tts"


@pytest.fixture
def owner(settings: Settings) -> Iterator[Owner]:
    with psycopg.connect(settings.database(), autocommit=True, row_factory=dict_row) as db:
        with_days(db, 12)
        yield db


@pytest.fixture
def artifacts(settings: Settings) -> Artifacts:
    return Artifacts(settings.artifacts_url)


@pytest.fixture
def keeper(db: Pool, artifacts: Artifacts) -> Keeper:
    return Keeper(db, artifacts)


def keep(owner: Owner, table: str, days: int | None) -> None:
    owner.execute("UPDATE retention SET keep_days = %s WHERE table_name = %s", [days, table])


def ended(owner: Owner, *, age: timedelta = timedelta(0), **columns: Any) -> UUID:
    """A job on record that ended so long ago."""
    at = datetime.now(UTC) - age
    times = dict.fromkeys(("created_at", "run_at", "started_at", "finished_at"), at)
    what = {"id": new_id(), "feature": TEXT, "capability": "text", "lane": "batch", "state": "succeeded"}
    counts = {"priority": 0, "run": 1, "retries": 0, "calls": 1, "cost_usd": "0.01"}
    texts = {
        "input": Jsonb({"sign": CANARY}),
        "metadata": Jsonb({"of": CANARY}),
        "result": Jsonb({"text": CANARY}),
    }
    row: dict[str, Any] = {**times, **what, **counts, **texts, **columns}
    names, values = ", ".join(row), ", ".join(f"%({name})s" for name in row)
    owner.execute(f"INSERT INTO job_history ({names}) VALUES ({values})".encode(), row)
    return UUID(str(row["id"]))


def days(owner: Owner, table: str) -> set[date]:
    """The days that have a partition."""
    rows = owner.execute(
        "SELECT right(relname, 8) AS day FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid "
        "WHERE inhparent = %s::regclass",
        [table],
    )
    return {datetime.strptime(row["day"], "%Y%m%d").replace(tzinfo=UTC).date() for row in rows}


def files(settings: Settings) -> list[Path]:
    return [path for path in Path(settings.artifacts_url).rglob("*") if path.is_file()]


def count(db: Pool) -> None:
    while True:
        with db.connection() as connection:
            step = rollup.advance(connection, pause_seconds=0)
        if step is not None and step.caught_up:
            return


# --- days that are too old ----------------------------------------------------------------------------


def test_without_a_policy_nothing_goes(owner: Owner, keeper: Keeper) -> None:
    before = days(owner, "job_history"), days(owner, "ai_usage_analytics")
    assert keeper.turn()
    assert (days(owner, "job_history"), days(owner, "ai_usage_analytics")) == before
    assert len(before[0]) == 12 + 14


def test_a_policy_drops_whole_days_that_ended_so_long_ago(owner: Owner, keeper: Keeper) -> None:
    old, young = ended(owner, age=timedelta(days=9)), ended(owner, age=timedelta(days=7))
    with_days(owner, 33)
    keep(owner, "job_history", 7)
    keep(owner, "ai_usage_analytics", 31)

    keeper.turn()

    today = datetime.now(UTC).date()
    assert min(days(owner, "job_history")) == today - timedelta(days=7)
    assert min(days(owner, "ai_usage_analytics")) == today - timedelta(days=31)
    left = {row["id"] for row in owner.execute("SELECT id FROM job_history")}
    assert left == {young}
    assert old not in left


def test_a_day_goes_with_its_artifacts_those_too_that_no_record_names(
    owner: Owner, keeper: Keeper, artifacts: Artifacts, settings: Settings
) -> None:
    old, young = new_id(), new_id()
    artifacts.write(old, 1, b"lost", "audio/wav")
    key = artifacts.write(old, 2, b"heard", "audio/wav")
    kept = artifacts.write(young, 1, b"kept", "audio/wav")
    ended(owner, id=old, age=timedelta(days=9), artifact_key=key, run=2)
    ended(owner, id=young, age=timedelta(days=7), artifact_key=kept)
    keep(owner, "job_history", 7)

    keeper.turn()

    assert [path.name for path in files(settings)] == [kept.rpartition("/")[2]]


def test_a_day_whose_artifacts_cannot_be_deleted_stays(
    owner: Owner, keeper: Keeper, artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = ended(owner, age=timedelta(days=9), artifact_key="x/y.wav")
    keep(owner, "job_history", 7)
    with monkeypatch.context() as broken:
        broken.setattr("obstore.list", _refuse)
        keeper.turn()
    assert owner.execute("SELECT id FROM job_history").fetchall() == [{"id": job_id}]
    keeper.turn()
    assert owner.execute("SELECT id FROM job_history").fetchall() == []


def _refuse(*_: object) -> None:
    raise OSError("The disk is away.")


def test_calls_that_nobody_has_counted_stay(owner: Owner, keeper: Keeper, db: Pool) -> None:
    with_days(owner, 35)
    long_ago = datetime.now(UTC) - timedelta(days=34)
    record(owner, call(finished_at=long_ago))
    keep(owner, "ai_usage_analytics", 31)

    keeper.turn()
    assert owner.execute("SELECT count(*) AS n FROM ai_usage_analytics").fetchone() == {"n": 1}
    count(db)
    keeper.turn()

    assert owner.execute("SELECT count(*) AS n FROM ai_usage_analytics").fetchone() == {"n": 0}
    assert owner.execute("SELECT sum(calls)::int AS n FROM usage_daily").fetchone() == {"n": 1}
    assert min(days(owner, "ai_usage_analytics")) == datetime.now(UTC).date() - timedelta(days=31)


def test_a_call_that_commits_late_is_waited_for(
    owner: Owner, keeper: Keeper, db: Pool, settings: Settings
) -> None:
    """It is in the partition before it can be seen, and holds its table's lock."""
    with_days(owner, 35)
    keep(owner, "ai_usage_analytics", 31)
    with psycopg.connect(settings.database()) as slow:
        record(slow, call(finished_at=datetime.now(UTC) - timedelta(days=34)))
        count(db)
        keeper.turn()
        slow.commit()
    keeper.turn()
    assert owner.execute("SELECT count(*) AS n FROM ai_usage_analytics").fetchone() == {"n": 1}
    count(db)
    keeper.turn()
    assert owner.execute("SELECT count(*) AS n FROM ai_usage_analytics").fetchone() == {"n": 0}
    assert owner.execute("SELECT sum(calls)::int AS n FROM usage_daily").fetchone() == {"n": 1}


def test_counts_of_another_cluster_say_nothing(owner: Owner, keeper: Keeper) -> None:
    with_days(owner, 35)
    keep(owner, "ai_usage_analytics", 31)
    owner.execute("UPDATE usage_rollup SET cluster = cluster + 1")
    before = days(owner, "ai_usage_analytics")
    keeper.turn()
    assert days(owner, "ai_usage_analytics") == before


def test_a_reader_holds_a_drop_up_and_is_not_held_up_by_it(
    owner: Owner, db: Pool, keeper: Keeper, settings: Settings
) -> None:
    ended(owner, age=timedelta(days=9))
    keep(owner, "job_history", 8)
    with psycopg.connect(settings.database()) as reader:
        reader.execute("SELECT FROM job_history LIMIT 1")
        began = time.monotonic()
        with db.connection() as connection:
            due = connection.execute("SELECT partition::text FROM expired_partitions()").fetchall()
            oldest = due[0]["partition"]
            dropped = connection.execute("SELECT drop_partition(%s::regclass) AS it", [oldest]).fetchone()
        took = time.monotonic() - began
        assert dropped == {"it": False}
        assert 0.15 < took < 0.6
        reader.execute("SELECT FROM job_history LIMIT 1")
        ended(owner)  # nobody else waits any more
    keeper.turn()
    assert min(days(owner, "job_history")) == datetime.now(UTC).date() - timedelta(days=8)


def test_one_process_at_a_time_keeps(owner: Owner, db: Pool, keeper: Keeper, artifacts: Artifacts) -> None:
    with db.connection() as busy:
        busy.execute("SELECT pg_advisory_lock(hashtext('orrery keeper'))")
        assert not Keeper(db, artifacts).turn()
        busy.execute("SELECT pg_advisory_unlock(hashtext('orrery keeper'))")
    assert keeper.turn()
    assert keeper.turn(), "it lets go"


@pytest.mark.parametrize("seed", [1, 2])
def test_no_day_is_dropped_inside_its_policy_or_before_it_is_counted(
    owner: Owner, keeper: Keeper, db: Pool, seed: int
) -> None:
    """Policies that grow and shrink, with calls of any day, counted and not."""
    with_days(owner, 44)
    chance = random.Random(seed)
    today = datetime.now(UTC).date()
    uncounted: set[date] = set()
    for _ in range(5):
        policies = {
            "job_history": chance.choice([None, chance.randint(1, 42)]),
            "ai_usage_analytics": chance.choice([None, chance.randint(31, 42)]),
        }
        there = {table: days(owner, table) for table in policies}
        if chance.random() < 0.5:
            count(db)
            uncounted.clear()
        for day in chance.sample(sorted(day for day in there["ai_usage_analytics"] if day < today), 3):
            record(owner, call(finished_at=datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC)))
            uncounted.add(day)
        for table, kept in policies.items():
            keep(owner, table, kept)

        keeper.turn()

        for table, kept in policies.items():
            left = days(owner, table)
            due = {day for day in there[table] if kept is not None and (today - day).days > kept}
            held = due & uncounted if table == "ai_usage_analytics" else set()
            oldest_held = min(held, default=date.max)
            assert there[table] - left == {day for day in due if day < oldest_held}, (table, kept)


# --- partitions that are missing ----------------------------------------------------------------------


def test_partitions_are_made_ahead_and_one_that_cannot_be_is_told_of(owner: Owner, keeper: Keeper) -> None:
    day = datetime.now(UTC).date() + timedelta(days=2)
    name = f"job_history_{day:%Y%m%d}"
    owner.execute(f"DROP TABLE {name}".encode())
    keeper.turn()
    assert day in days(owner, "job_history")
    assert owner.execute("SELECT FROM alerts").fetchall() == []

    owner.execute(f"DROP TABLE {name}".encode())
    owner.execute(f"CREATE TABLE {name} (id int)".encode())
    keeper.turn()
    keeper.turn()

    (alert,) = owner.execute("SELECT kind, noun, noun_id, message, count FROM alerts").fetchall()
    assert (alert["kind"], alert["noun"], alert["noun_id"]) == (
        "partition_missing",
        "retention",
        "job_history",
    )
    assert str(day) in alert["message"]
    assert alert["count"] == 2


# --- contents -----------------------------------------------------------------------------------------


def shown(owner: Owner, job_id: UUID) -> dict[str, Any]:
    row = owner.execute("SELECT * FROM job_history WHERE id = %s", [job_id]).fetchone()
    assert row is not None
    return row


def test_a_feature_keeps_contents_for_days_and_records_for_longer(
    rows: Rows, owner: Owner, keeper: Keeper, artifacts: Artifacts, settings: Settings
) -> None:
    rows.change_feature(TEXT, keep_days=3)
    old = new_id()
    key = artifacts.write(old, 1, b"heard", "audio/wav")
    ended(owner, id=old, age=timedelta(days=3, minutes=1), artifact_key=key, error_message=CANARY)
    record(owner, call(job_id=old, finished_at=datetime.now(UTC) - timedelta(days=3), error_message=CANARY))
    young = ended(owner, age=timedelta(days=3, minutes=-1))
    other = ended(owner, age=timedelta(days=9), feature="cv_draft")

    keeper.turn()

    gone = shown(owner, old)
    assert (gone["input"], gone["metadata"], gone["result"], gone["artifact_key"]) == ({}, {}, None, None)
    assert gone["input_erased_at"] is not None
    assert gone["output_erased_at"] is not None
    assert (gone["state"], str(gone["cost_usd"])) == ("succeeded", "0.01")
    assert CANARY not in str(gone)
    assert owner.execute(
        "SELECT error_message, cost_usd IS NULL AS no_cost FROM ai_usage_analytics"
    ).fetchall() == [{"error_message": None, "no_cost": False}]
    assert files(settings) == []
    for kept in (young, other):
        assert shown(owner, kept)["result"] == {"text": CANARY}
        assert shown(owner, kept)["input_erased_at"] is None


def test_a_choice_holds_for_what_is_on_record_and_a_stricter_one_goes_back(
    rows: Rows, owner: Owner, keeper: Keeper
) -> None:
    jobs = {age: ended(owner, age=timedelta(days=age)) for age in (1, 4, 8)}
    for keep_days, left in ((7, {1, 4}), (9, {1, 4}), (3, {1}), (None, {1})):
        rows.change_feature(TEXT, keep_days=keep_days)
        keeper.turn()
        kept = {age for age, job_id in jobs.items() if shown(owner, job_id)["result"] is not None}
        assert kept == left, keep_days
    rows.change_feature(TEXT, store_output=False)
    keeper.turn()
    last = shown(owner, jobs[1])
    assert (last["result"], last["input"]) == (None, {"sign": CANARY})


def test_outputs_that_are_not_stored_are_there_for_an_hour(rows: Rows, owner: Owner, keeper: Keeper) -> None:
    rows.change_feature(TEXT, store_output=False)
    fresh = ended(owner, age=timedelta(minutes=59))
    late = [ended(owner, age=timedelta(minutes=61)) for _ in range(3)]

    keeper.turn()

    assert shown(owner, fresh)["result"] == {"text": CANARY}
    for job_id in late:
        row = shown(owner, job_id)
        assert (row["result"], row["input"], row["input_erased_at"]) == (None, {"sign": CANARY}, None)


def test_inputs_that_are_not_stored_never_get_on_record(
    rows: Rows, owner: Owner, client: Client, sandbox: Sandbox, worker: WorkerProcess
) -> None:
    """However a job ends; and what follows it has its input from it even so."""
    rows.assign(TEXT, rows.model(rows.provider("p", sandbox.openai), "m"), user="{{ sign }}")
    rows.change_feature(TEXT, store_input=False)
    step = {"feature_name": "chat_assistant", "input_map": {"message": "Say: {{ input.language }}"}}
    rows.assign("chat_assistant", rows.model(rows.provider("q", sandbox.openai), "n"))

    done = client.enqueue(
        TEXT, {"sign": "aries", "language": "de"}, metadata={"of": CANARY}, then=[step],
        callback_url="https://hooks.example.com/x",
    )  # fmt: skip
    later = client.enqueue(
        TEXT, {"sign": "aries"}, metadata={"of": CANARY}, run_at=datetime.now(UTC) + timedelta(hours=1)
    )
    client.cancel(later)
    finished = client.result(done)
    until(lambda: len(_chain(client, done)) == 2 and _chain(client, done)[1].is_finished)

    for job_id in (done, later):
        row = shown(owner, job_id)
        assert (row["input"], row["metadata"], row["follow_ups"]) == ({}, {}, None)
        assert row["input_erased_at"] is not None
        assert row["output_erased_at"] is None
    assert finished.result is not None
    assert finished.erased_at == finished.input_erased_at is not None
    child = _chain(client, done)[1]
    assert child.input == {"message": "Say: de"}
    (told,) = owner.execute("SELECT content FROM notices WHERE job_id = %s", [done]).fetchall()
    assert told["content"]["job"]["metadata"] == {"of": CANARY}, "whoever is called back knows it again"
    with pytest.raises(InputRejected, match="erased"):
        client.retry(finished)


def _chain(client: Client, job_id: UUID) -> list[Job]:
    first = client.job(job_id)
    assert first is not None
    found = [client.job(link.id) for link in first.chain]
    return [job for job in found if job is not None]


def test_news_of_a_job_loses_what_the_job_loses(rows: Rows, owner: Owner, keeper: Keeper) -> None:
    rows.change_feature(TEXT, store_input=False, store_output=False)
    job_id = ended(
        owner,
        age=timedelta(hours=2),
        callback_url="https://hooks.example.com/x",
        state="failed",
        error_class="server_error",
        error_message=CANARY,
    )

    keeper.turn()

    (told,) = owner.execute("SELECT content FROM notices WHERE job_id = %s", [job_id]).fetchall()
    assert CANARY not in str(told)
    assert told["content"]["job"]["error"] == {"class": "server_error", "message": None}
    assert told["content"]["job"]["erased"] is True


def test_what_a_call_brings_after_its_job_was_cancelled_and_erased_is_deleted(
    owner: Owner, keeper: Keeper, artifacts: Artifacts, settings: Settings
) -> None:
    now = datetime.now(UTC)
    erased = ended(owner, state="cancelled", input_erased_at=now, output_erased_at=now)
    other = ended(owner, state="cancelled")
    artifacts.write(erased, 1, b"late", "audio/wav")
    kept = artifacts.write(other, 1, b"late, too", "audio/wav")

    keeper.turn()

    assert [path.name for path in files(settings)] == [kept.rpartition("/")[2]]


def test_a_scheduler_process_keeps(owner: Owner, settings: Settings) -> None:
    ended(owner, age=timedelta(days=9))
    keep(owner, "job_history", 3)
    process = SchedulerProcess(settings)
    process.start()
    try:
        until(lambda: not owner.execute("SELECT FROM job_history").fetchall())
    finally:
        process.stop()


def test_several_may_delete_the_same_artifacts(artifacts: Artifacts, settings: Settings) -> None:
    ids = [new_id() for _ in range(50)]
    for job_id in ids:
        artifacts.write(job_id, 1, b"x", "audio/wav")
    other = artifacts.write(new_id(), 1, b"x", "audio/wav")
    with ThreadPoolExecutor(4) as threads:
        deleted = list(threads.map(lambda _: artifacts.delete(ids), range(4)))
    assert max(deleted) > 0
    assert artifacts.delete(ids) == 0
    assert [path.name for path in files(settings)] == [other.rpartition("/")[2]]
