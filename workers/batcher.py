"""The batcher: has waiting jobs answered through their providers' batch APIs.

    collect  waiting jobs of a feature, by the route that would serve them ─▶ batches, ready
    send     compose, reserve with budgets ─▶ submit ─▶ the provider's id, written down before anything else
    look     running: again in a while · over: each line ends its job, as a run of a worker would

It holds no thread and no slot while a provider works. Any number may run: one at a time looks at a batch.
What cannot be in a batch goes live, that is to the workers: a route without a batch API, a line that fails
and may be tried again, a batch that is refused, and whatever is not done when half of the time until its
deadline is over.
"""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.rows import DictRow, dict_row

from routing import batching, budgets, outputs, prompts
from routing.batching import BatchState, BatchStatus
from routing.errors import OutputRejected, ProviderError, RoutingError, SubmitUnknown
from routing.failover import cost_of, unsealed
from routing.media import AUDIO_INPUTS, IMAGE_INPUTS
from routing.resolver import resolve
from routing.snapshot import Snapshot, Snapshots
from routing.transport import Transport
from routing.values import (
    Attempt,
    AttemptOutcome,
    Call,
    Caller,
    Capability,
    Outcome,
    Plan,
    Reply,
    Request,
    Route,
    Usage,
)
from store.database import Pool, Role, conninfo
from store.settings import Settings
from store.vault import Vault
from workers import batches, jobs, lifecycle, spending, usage
from workers.artifacts import ArtifactError, Artifacts
from workers.batches import Batch, Waiting
from workers.jobs import Claimed, Completion
from workers.lifecycle import Execution
from workers.rounds import Rounds

logger = logging.getLogger(__name__)

T = TypeVar("T")

_BATCHED = frozenset({Capability.TEXT, Capability.SPEECH, Capability.EMBEDDING})
_ATTACHMENTS = {*IMAGE_INPUTS, *AUDIO_INPUTS, "url"}  # are fetched when a call is made
_AT_ONCE = 50  # endings of one transaction
_SETTLE = 0.1  # of the pause between looks: how long waiting jobs must have come to an end
_LISTED = 1.0  # of it: until a provider lists what it was sent
_GIVES_UP_HOURS = 72.0


@dataclass(frozen=True, slots=True)
class _Terms:
    """What the jobs of a batch are done with."""

    plan: Plan
    route: Route
    key: str | None


class Batcher:
    """One process's batcher.

    Args:
        worker: host and process, as jobs name who runs them.
    """

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        *,
        snapshots: Snapshots,
        transport: Transport,
        vault: Vault,
        artifacts: Artifacts,
        worker: str,
    ) -> None:
        self._pool = pool
        self._looker = conninfo(settings.database(), Role.WORKER, application="orrery batches")
        self._snapshots = snapshots
        self._transport = transport
        self._vault = vault
        self._artifacts = artifacts
        self._worker = worker
        self._pause = settings.batch_seconds
        self._rounds = Rounds("batcher", self.turn, pause_seconds=min(1.0, self._pause / 4))

    def start(self) -> None:
        """Begin."""
        self._rounds.start()

    def stop(self) -> None:
        """End after the batch it is at."""
        self._rounds.stop()

    def turn(self) -> None:
        """Put together what waits, and look at what is due."""
        with self._pool.connection() as db:
            for feature in batches.ready_features(db, settle_seconds=self._pause * _SETTLE):
                with db.transaction():
                    self._collect(db, feature)
            due = batches.due(db)
        if not due:
            return
        with psycopg.connect(self._looker, autocommit=True, row_factory=dict_row) as db:
            for batch in due:
                if self._rounds.is_over:
                    return
                with batches.looking_at(db, batch.id) as mine:
                    now = batches.found(db, batch.id) if mine else None
                    if now is not None and now.state != "over":
                        self._look(db, now)

    # --- collect --------------------------------------------------------------------------------------

    def _collect(self, db: Connection[DictRow], feature: str) -> None:
        waiting = batches.lock_waiting(db, feature)
        snapshot = self._configuration(db)
        now = datetime.now(UTC)
        by_route: defaultdict[tuple[UUID, str | None], list[Waiting]] = defaultdict(list)
        plans: dict[tuple[UUID, str | None], Plan] = {}
        live = []
        for one in waiting:
            plan = _batchable(snapshot, one, now)
            if plan is None:
                live.append(one.id)
                continue
            kind = plan.routes[0].model.id, one.plan
            plans[kind] = plan
            by_route[kind].append(one)
        batches.go_live(db, ids=live)
        for kind, those in by_route.items():
            plan = plans[kind]
            most, _ = batching.limits(plan.routes[0])
            for some in _pieces(those, most):
                batch_id = batches.make(db, plan, plan.routes[0], some, now=now, worker=f"batch {feature}")
                logger.info("Batch %s: %d jobs of %s.", batch_id, len(some), feature)

    # --- look -----------------------------------------------------------------------------------------

    def _look(self, db: Connection[DictRow], batch: Batch) -> None:
        """Whatever is next of a batch. Errors of its provider are written down, and it is looked at again."""
        try:
            terms = self._terms(db, batch)
            if terms is None:
                self._abandon(db, batch, "Its feature, model or assignment was removed.")
            elif batch.state == "ready":
                self._send(db, batch, terms)
            elif batch.state == "sending":
                self._find(db, batch, terms)
            else:
                self._poll(db, batch, terms)
        except RoutingError as error:
            logger.warning("Batch %s of %s waits: %s", batch.id, batch.provider, error.message)
            self._give_up_waiting(db, batch)
            batches.look_again(db, batch.id, seconds=self._soon(), error=error.message)
            if _hours(batch.created_at) > _GIVES_UP_HOURS:
                batches.over(db, batch.id, error.message)
        except ArtifactError as error:
            logger.warning("Batch %s waits to keep an artifact: %s", batch.id, error)
            batches.look_again(db, batch.id, seconds=self._soon(), error=str(error))

    def _send(self, db: Connection[DictRow], batch: Batch, terms: _Terms) -> None:
        calls = []
        live = []
        for job in batches.members(db, batch.id):
            try:
                call = _call(terms, job.input, job.user_id)
                refusal = self._unaffordable(db, terms.plan, call, job)
            except RoutingError as error:
                refusal = error
            if refusal is None:
                calls.append((str(job.id), call))
            else:
                live.append(job)
        for job in live:
            self._put_live(db, job, [])
        if not calls or batch.is_late:
            self._abandon(db, batch, None)
            return
        token = batches.sending(db, batch.id)
        try:
            name = batching.submit(
                self._transport, terms.route.provider, terms.key, calls, label=str(batch.id)
            )
        except SubmitUnknown as error:
            logger.warning("Batch %s: nobody knows whether it was taken: %s", batch.id, error.message)
            batches.look_again(db, batch.id, seconds=self._pause * _LISTED, error=error.message)
            return
        except RoutingError as error:
            logger.warning("Batch %s was refused, its jobs go live: %s", batch.id, error.message)
            self._abandon(db, batch, error.message)
            return
        if not batches.submitted(db, batch.id, name, seconds=self._soon(), token=token):
            batching.cancel(self._transport, terms.route.provider, terms.key, name)

    def _find(self, db: Connection[DictRow], batch: Batch, terms: _Terms) -> None:
        """What became of a submission that nobody saw the end of."""
        self._give_up_waiting(db, batch)
        sent_at = batch.sent_at or batch.created_at
        left = self._pause * _LISTED - (datetime.now(UTC) - sent_at).total_seconds()
        if left > 0:
            batches.look_again(db, batch.id, seconds=left)
            return
        name = batching.find(
            self._transport,
            terms.route.provider,
            terms.key,
            label=str(batch.id),
            since=sent_at,
            known=batches.known_ids(db, batch.provider_id),
        )
        if name is not None:
            batches.submitted(db, batch.id, name, seconds=self._soon())
        elif batch.gone_live or batch.is_late:
            batches.over(db, batch.id)
        else:
            self._send(db, batch, terms)

    def _poll(self, db: Connection[DictRow], batch: Batch, terms: _Terms) -> None:
        assert batch.provider_batch_id is not None, "it was submitted"  # noqa: S101
        state = batching.poll(self._transport, terms.route.provider, terms.key, batch.provider_batch_id)
        batches.counted(db, batch.id, completed=state.completed, failed=state.failed)
        if state.status is not BatchStatus.RUNNING:
            self._take_results(db, batch, terms, state)
            return
        is_wanted = bool(batches.members(db, batch.id))
        if (batch.is_late or not is_wanted) and not batch.cancel_asked:
            try:
                batching.cancel(self._transport, terms.route.provider, terms.key, batch.provider_batch_id)
            except RoutingError as error:
                logger.warning("Batch %s could not be cancelled: %s", batch.id, error.message)
            batches.asked_to_end(db, batch.id)
        self._give_up_waiting(db, batch)
        batches.look_again(db, batch.id, seconds=self._soon())
        if _hours(batch.created_at) > _GIVES_UP_HOURS:
            batches.over(db, batch.id, "The provider never ended it.")

    def _give_up_waiting(self, db: Connection[DictRow], batch: Batch) -> None:
        """Let what is left go live once there is just the time for it."""
        if batch.is_late and not batch.gone_live:
            left = batches.go_live(db, batch_id=batch.id)
            batches.gave_up(db, batch.id)
            logger.warning("Batch %s is late: %d jobs go live.", batch.id, left)

    def _abandon(self, db: Connection[DictRow], batch: Batch, error: str | None) -> None:
        batches.go_live(db, batch_id=batch.id)
        batches.over(db, batch.id, error)

    # --- results --------------------------------------------------------------------------------------

    def _take_results(self, db: Connection[DictRow], batch: Batch, terms: _Terms, state: BatchState) -> None:
        """End each job by its line. Whoever comes after a death in the middle finds those that are left."""
        members = {str(job.id): job for job in batches.members(db, batch.id)}
        departed = {str(row["id"]): row for row in batches.departed(db, batch.id)}
        calls: dict[str, Call] = {}
        for name, job in members.items():
            calls[name] = _call_of_then(terms, job.input, job.user_id)
        for name, row in departed.items():
            calls.setdefault(name, _call_of_then(terms, row["input"], row["user_id"]))
        found = batching.results(self._transport, terms.route.provider, terms.key, state, calls)
        for some in _pieces(found, _AT_ONCE):
            completions = []
            for name, outcome in some:
                if name not in members:
                    self._record_departed(db, batch, terms, departed[name], outcome)
                    continue
                completion = self._completion(db, batch, terms, members[name], outcome)
                if completion is not None:
                    completions.append(completion)
            ended = jobs.complete(db, completions)
            for completion in completions:
                if completion.job.id not in ended:  # cancelled in this moment: it was paid for
                    jobs.record_calls(db, usage.superseded(completion.attempts))
        batches.over(db, batch.id, state.message)

    def _completion(
        self,
        db: Connection[DictRow],
        batch: Batch,
        terms: _Terms,
        job: Claimed,
        outcome: Reply | RoutingError,
    ) -> Completion | None:
        """The ending of a job by its line; None where it went live instead."""
        if isinstance(outcome, Reply):
            outcome = _checked(outcome, terms.plan)
        attempt = _attempt(batch, terms.route, outcome)
        rows = self._rows(batch, terms, job.id, job.run, job.user_id, job.caller_admin_id, attempt)
        if isinstance(outcome, RoutingError) and (outcome.retryable or outcome.tries_backup):
            self._put_live(db, job, rows, cost=attempt)
            return None
        execution = Execution(job, plan=terms.plan, outcome=_outcome(attempt, outcome, terms.route))
        if isinstance(outcome, Reply) and outcome.artifact is not None:
            media_type = outcome.media_type or "application/octet-stream"
            key = self._artifacts.write(job.id, job.run, outcome.artifact, media_type)
            execution = replace(execution, artifact_key=key)
        ending = replace(
            lifecycle.ending(execution),
            config_version=batch.config_version,
            assignment_id=batch.assignment_id,
            prompt_version=batch.prompt_version,
            key_version=batch.key_version,
            latency_ms=None,
        )
        return Completion(job, ending, rows)

    def _put_live(
        self,
        db: Connection[DictRow],
        job: Claimed,
        rows: Sequence[usage.AttemptRow],
        *,
        cost: Attempt | None = None,
    ) -> None:
        spent = usage.known_cost([cost] if cost else [])
        if not jobs.put_back(db, job, rows, delay_seconds=0, cost_usd=spent, is_retry=False):
            jobs.record_calls(db, usage.superseded(rows))

    def _record_departed(
        self,
        db: Connection[DictRow],
        batch: Batch,
        terms: _Terms,
        row: DictRow,
        outcome: Reply | RoutingError,
    ) -> None:
        """What a line cost whose job was cancelled or done live. Run 0 is no run of a worker."""
        attempt = _attempt(batch, terms.route, outcome)
        if not attempt.called:
            return
        rows = self._rows(batch, terms, row["id"], 0, row["user_id"], row["caller_admin_id"], attempt)
        jobs.record_calls(db, usage.superseded(rows))

    def _rows(
        self,
        batch: Batch,
        terms: _Terms,
        job_id: UUID,
        run: int,
        user_id: str | None,
        caller_admin_id: UUID | None,
        attempt: Attempt,
    ) -> list[usage.AttemptRow]:
        rows = usage.rows(
            [attempt],
            terms.plan,
            job_id=job_id,
            run=run,
            user_id=user_id,
            caller_admin_id=caller_admin_id,
            worker=self._worker,
        )
        return [
            replace(
                row,
                config_version=batch.config_version,
                assignment_id=batch.assignment_id,
                prompt_version=batch.prompt_version,
                key_version=batch.key_version,
                latency_ms=None,
            )
            for row in rows
        ]

    # --- with what ------------------------------------------------------------------------------------

    def _terms(self, db: Connection[DictRow], batch: Batch) -> _Terms | None:
        """The configuration of now, and the price of when the batch was sent; None where it is gone.

        Raises ConfigurationError for a key that does not open.
        """
        snapshot = self._configuration(db)
        feature = snapshot.features.get(batch.feature)
        model = snapshot.models.get(batch.model_row_id)
        assignment = None if feature is None else snapshot.assignments.get(feature.id)
        if feature is None or model is None or assignment is None:
            return None
        price = snapshot.price(model.id, batch.sent_at or datetime.now(UTC))
        route = Route(snapshot.providers[model.provider_id], model, price)
        plan = Plan(snapshot.version, feature, assignment, (route,), budgets=tuple(snapshot.budgets))
        return _Terms(plan, route, unsealed(self._vault, route))

    def _configuration(self, db: Connection[DictRow]) -> Snapshot:
        row = db.execute("SELECT version FROM config_state").fetchone()
        assert row is not None, "config_state always has its one row"  # noqa: S101
        return self._snapshots.at_least(row["version"])

    def _unaffordable(
        self, db: Connection[DictRow], plan: Plan, call: Call, job: Claimed
    ) -> RoutingError | None:
        return budgets.refusal(
            plan, call, 1, job.user_id, lambda wanted: spending.reserve(db, job.id, job.run, wanted)
        )

    def _soon(self) -> float:
        return self._pause * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, guards nothing


def _batchable(snapshot: Snapshot, one: Waiting, now: datetime) -> Plan | None:
    """The plan of a job whose first route takes batches; None: it goes live, where errors are told."""
    if any(one.input.get(name) for name in _ATTACHMENTS):
        return None
    caller = Caller(one.caller_admin_id, one.caller_role or ("admin" if one.caller_admin_id else None))
    request = Request(
        one.feature,
        one.input,
        caller=caller,
        user_id=one.user_id,
        plan=one.plan,
        sticky=one.user_id or str(one.id),
    )
    try:
        plan = resolve(snapshot, request, now=now)
    except RoutingError:
        return None
    capability = plan.feature.capability
    if not plan.routes or capability not in _BATCHED:
        return None
    route = plan.routes[0]
    if route.personal_key is not None or not batching.can_batch(route, capability):
        return None
    return plan


def _call(terms: _Terms, input_: Any, user_id: str | None) -> Call:
    request = Request(terms.plan.feature.name, input_, user_id=user_id)
    return prompts.compose(terms.plan.feature, terms.plan.assignment, terms.route, request)


def _call_of_then(terms: _Terms, input_: Any, user_id: str | None) -> Call:
    """The call that a line answers, as far as its answer is read by it."""
    try:
        return _call(terms, input_, user_id)
    except RoutingError:  # the prompt is another one by now
        return Call(terms.plan.feature.capability, terms.route, system=None, user="")


def _checked(reply: Reply, plan: Plan) -> Reply | RoutingError:
    schema = prompts.output_schema(plan.feature)
    if schema is None:
        return reply
    try:
        return outputs.checked(reply, schema)
    except OutputRejected as error:
        error.usage = error.usage and replace(error.usage, batch_rate=True)
        return error


def _attempt(batch: Batch, route: Route, outcome: Reply | RoutingError) -> Attempt:
    reply = outcome if isinstance(outcome, Reply) else None
    error = outcome if isinstance(outcome, RoutingError) else None
    answered = error if isinstance(error, ProviderError) else None
    spent = reply.usage if reply else answered.usage if answered else None
    return Attempt(
        n=1,
        route=route,
        started_at=batch.sent_at or batch.created_at,
        finished_at=datetime.now(UTC),
        latency_ms=0,
        outcome=AttemptOutcome.FAILED if reply is None else AttemptOutcome.SUCCEEDED,
        called=reply is not None or (answered is not None and answered.sent),
        breaker="closed",
        error_class=error.error_class if error else None,
        error_message=error.message if error else None,
        status=200 if reply else answered.status if answered else None,
        request_id=reply.request_id if reply else answered.request_id if answered else None,
        served_model=reply.served_model if reply else None,
        usage=spent or Usage(),
        cost_usd=cost_of(spent, answered, route),
    )


def _outcome(attempt: Attempt, outcome: Reply | RoutingError, route: Route) -> Outcome:
    if isinstance(outcome, Reply):
        return Outcome((attempt,), reply=outcome, route=route)
    return Outcome((attempt,), error_class=outcome.error_class, error_message=outcome.message)


def _pieces(items: Iterable[T], most: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while piece := list(islice(iterator, most)):
        yield piece


def _hours(since: datetime) -> float:
    return (datetime.now(UTC) - since).total_seconds() / 3600
