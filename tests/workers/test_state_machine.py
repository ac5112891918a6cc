"""The life cycle as a state machine: any order of events, checked against a model after each.

The model is the documentation's table of states and arrows, in memory; the machine drives the real statements
on real PostgreSQL and compares every row of `jobs` and `job_history` with it after every step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.rows import dict_row

from store.database import conninfo
from store.ids import new_id
from workers import jobs
from workers.jobs import MOST_CRASHES, Claimed, Completion, Ending, NewJob

LANES = st.sampled_from(["standard", "batch"])
PICK = st.integers(0, 10_000)


@dataclass
class Model:
    """One job as it should be."""

    lane: str
    priority: int
    state: str = "queued"
    run: int = 0
    retries: int = 0
    crashes: int = 0
    suspect: bool = False
    alone: bool = False
    expired: bool = False
    token: UUID | None = None
    lost: int = 0
    superseded: set[UUID] = field(default_factory=set)

    @property
    def is_live(self) -> bool:
        return self.state in ("queued", "running")

    def starts(self, claimed: Claimed) -> None:
        self.state, self.token, self.expired = "running", claimed.lease_token, False
        self.run += 1
        self.alone = self.suspect

    def waits(self) -> None:
        self.state, self.token, self.alone, self.expired = "queued", None, False, False


class Lifecycle(RuleBasedStateMachine):
    """Events in any order. `db` is set by the test.

    Jobs and claims are picked by number, so that few steps are spent on nothing; few rules with many cases,
    since hypothesis tries rules in random subsets.
    """

    db: jobs.Database
    poisoned = 0

    @initialize()
    def empty(self) -> None:
        self.db.execute("DELETE FROM jobs")
        self.db.execute("DELETE FROM job_history")
        self.db.execute("DELETE FROM ai_usage_analytics")
        self.db.execute("UPDATE lanes SET is_paused = false, resumed_at = NULL")
        row = self.db.execute("SELECT version FROM config_state").fetchone()
        assert row is not None
        self.version = row["version"]
        self.models: dict[UUID, Model] = {}
        self.claims: list[Claimed] = []
        self.paused: set[str] = set()
        self.enqueue("standard", 0)

    @rule(lane=LANES, priority=st.integers(-1, 1))
    def enqueue(self, lane: str, priority: int) -> None:
        job = NewJob(
            id=new_id(), feature="cv_draft", capability="text", lane=lane, input={}, priority=priority
        )
        assert jobs.insert(self.db, job, config_version=self.version, rung=False)
        self.models[job.id] = Model(lane, priority)

    @rule(pick=PICK)
    def claim(self, pick: int) -> None:
        job_id = self._job(pick)
        expected = self._claimable(job_id)
        claimed = jobs.claim(self.db, job_id, lease_seconds=600, worker="w")
        assert (claimed.id if claimed else None) == expected
        self._started(claimed)

    @precondition(lambda self: any(model.suspect for model in self.models.values()))
    @rule()
    def claim_suspect(self) -> None:
        expected = self._next_suspect()
        claimed = jobs.claim_suspect(self.db, lease_seconds=600, worker="machine:1")
        assert (claimed.id if claimed else None) == expected
        self._started(claimed)

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, how=st.sampled_from(["heartbeat", "complete", "put back", "release"]))
    def act_on_a_claim(self, pick: int, how: str) -> None:
        """What the holder of a lease does, be it still his or not."""
        claim = self._claim(pick)
        model, ours = self.models[claim.id], self._is_held(claim)
        if how == "complete":
            completion = Completion(claim, Ending(state="succeeded"), [])
            assert jobs.complete(self.db, [completion]) == ({claim.id} if ours else set())
            if ours:
                model.state = "succeeded"
                assert jobs.was_recorded(self.db, claim)
        elif how == "put back":
            assert jobs.put_back(self.db, claim, [], delay_seconds=0, cost_usd=Decimal(0)) == ours
            if ours:
                model.waits()
                model.retries += 1
                model.suspect = False  # it ended its run like anybody
        elif how == "release":
            assert jobs.release(self.db, {claim.id: claim.lease_token}) == int(ours)
            if ours:
                model.waits()
                model.lost += 1
        else:
            beaten = jobs.heartbeat(self.db, {claim.id: claim.lease_token}, lease_seconds=600)
            assert beaten == ({claim.id} if ours else set())
            if ours:
                model.expired = False

    @precondition(lambda self: self.claims)
    @rule(picks=st.lists(PICK, min_size=2, max_size=6))
    def complete_a_group(self, picks: list[int]) -> None:
        group = {claim.lease_token: claim for claim in map(self._claim, picks)}.values()
        ours = {claim.id for claim in group if self._is_held(claim)}
        ended = jobs.complete(self.db, [Completion(claim, Ending(state="failed"), []) for claim in group])
        assert ended == ours
        for job_id in ours:
            self.models[job_id].state = "failed"

    @precondition(lambda self: any(model.state == "running" for model in self.models.values()))
    @rule(pick=PICK, noticed=st.booleans())
    def worker_dies(self, pick: int, noticed: bool) -> None:
        """A lease runs out; it may be a while before anybody looks."""
        running = [i for i, m in self.models.items() if m.state == "running"]
        job_id = running[pick % len(running)]
        self.db.execute("UPDATE jobs SET lease_until = now() - interval '1 s' WHERE id = %s", [job_id])
        self.models[job_id].expired = True
        if noticed:
            self._rescue()

    def _rescue(self) -> None:
        back, poison = jobs.rescue(self.db, lease_seconds=0.001)
        for job_id, model in self.models.items():
            if model.state != "running" or not model.expired:
                assert job_id not in (*back, *poison)
                continue
            model.lost += 1
            if model.alone and model.crashes + 1 >= MOST_CRASHES:
                assert job_id in poison
                model.state, model.crashes = "failed", model.crashes + 1
                type(self).poisoned += 1
            else:
                assert job_id in back
                model.crashes += model.alone
                model.waits()
                model.suspect = True

    @precondition(lambda self: any(model.suspect for model in self.models.values()))
    @rule(times=st.integers(1, 3))
    def suspects_take_their_process_down(self, times: int) -> None:
        """What chance seldom brings together."""
        for _ in range(times):
            self.claim_suspect()
            for job_id, model in self.models.items():
                if model.state == "running" and model.alone:
                    self.db.execute(
                        "UPDATE jobs SET lease_until = now() - interval '1 s' WHERE id = %s", [job_id]
                    )
                    model.expired = True
            self._rescue()

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        job_id = self._job(pick)
        cancelled = self.db.execute("SELECT cancel_jobs(ARRAY[%s]) AS id", [job_id]).fetchall()
        model = self.models[job_id]
        assert bool(cancelled) == model.is_live
        if model.is_live:
            model.state = "cancelled"

    @rule(lane=LANES, paused=st.sampled_from([False, False, False, True]))
    def pause_or_resume(self, lane: str, paused: bool) -> None:
        self.db.execute("UPDATE lanes SET is_paused = %s, resumed_at = now() WHERE name = %s", [paused, lane])
        (self.paused.add if paused else self.paused.discard)(lane)

    @rule(lane=LANES)
    def ring(self, lane: str) -> None:
        rung = [i for i, _ in jobs.take_unrung(self.db, lane, room=1000, again_seconds=0)]
        due = [i for i, m in self.models.items() if m.lane == lane and not m.suspect and self._is_due(m)]
        assert rung == sorted(due, key=lambda i: (self.models[i].priority, i))

    @invariant()
    def the_rows_are_as_the_model_says(self) -> None:
        if not hasattr(self, "models"):
            return
        live = self.db.execute(
            "SELECT id, state, run, retries, crashes, suspect, alone, lease_token AS token FROM jobs"
        ).fetchall()
        ended = self.db.execute("SELECT id, state, run, retries, crashes FROM job_history").fetchall()
        assert len(ended) == len({row["id"] for row in ended}), "recorded once"
        wanted_live: dict[UUID, Any] = {i: m for i, m in self.models.items() if m.is_live}
        assert {row["id"] for row in live} == wanted_live.keys(), "nothing is lost"
        assert {row["id"] for row in ended} == self.models.keys() - wanted_live.keys()
        for row in (*live, *ended):
            model = self.models[row.pop("id")]
            assert row == {name: getattr(model, name) for name in row}
        lost = self.db.execute("SELECT count(*) FROM ai_usage_analytics WHERE outcome = 'lost'").fetchone()
        assert lost == {"count": sum(model.lost for model in self.models.values())}

    def _job(self, pick: int) -> UUID:
        """A job; mostly one that has not ended."""
        live = [i for i, m in self.models.items() if m.is_live]
        ids = live if live and pick % 5 else list(self.models)
        return ids[pick % len(ids)]

    def _claim(self, pick: int) -> Claimed:
        """A claim; mostly one of the last."""
        return self.claims[-1 - pick % min(len(self.claims), 6 if pick % 5 else len(self.claims))]

    def _started(self, claimed: Claimed | None) -> None:
        if claimed is not None:
            self.models[claimed.id].starts(claimed)
            self.claims.append(claimed)

    def _claimable(self, job_id: UUID) -> UUID | None:
        """What a doorbell of the job starts: the most urgent of those before it, else itself."""
        rung = self.models[job_id]
        if not rung.is_live:
            return None
        urgent = [
            (model.priority, i)
            for i, model in self.models.items()
            if model.lane == rung.lane
            and model.priority < rung.priority
            and not model.suspect
            and self._is_due(model)
        ]
        if urgent:
            return min(urgent)[1]
        return job_id if self._is_due(rung) and not rung.suspect else None

    def _next_suspect(self) -> UUID | None:
        """Those without a crash first; nobody beside one that has crashed."""
        waiting = [(m.crashes, i) for i, m in self.models.items() if m.suspect and self._is_due(m)]
        beside = [m.crashes for m in self.models.values() if m.state == "running" and m.alone]
        free = [(crashes, i) for crashes, i in waiting if not beside or max(crashes, *beside) == 0]
        return min(free)[1] if free else None

    def _is_due(self, model: Model) -> bool:
        return model.state == "queued" and model.lane not in self.paused

    def _is_held(self, claim: Claimed) -> bool:
        return self._holds(claim.id, claim.lease_token)

    def _holds(self, job_id: UUID, token: UUID) -> bool:
        model = self.models[job_id]
        return model.state == "running" and model.token == token


@pytest.mark.parametrize("least_steps", [5_000, pytest.param(50_000, marks=pytest.mark.full)])
def test_any_order_of_events_keeps_every_job_in_one_place(database_url: str, least_steps: int) -> None:
    with psycopg.connect(conninfo(database_url), autocommit=True, row_factory=dict_row) as db:
        db.execute("SET synchronous_commit = off")
        steps = [0]

        class Counted(Lifecycle):
            def check_invariants(self, *arguments: Any, **options: Any) -> None:
                steps[0] += 1
                super().check_invariants(*arguments, **options)

        Counted.db = db
        run_state_machine_as_test(
            Counted,
            settings=settings(
                max_examples=least_steps // 60,  # an example has some 75 steps
                stateful_step_count=100,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
    assert steps[0] >= least_steps
    if least_steps >= 50_000:
        assert Counted.poisoned, "the rarest arrow was drawn, too"
