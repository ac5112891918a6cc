"""The life of a job, from its doorbell to its record.

    claim     take the lease; learn the configuration version committed by now        1 statement
    resolve   feature + caller + snapshot → plan                                     in memory
    call      try the plan's routes: admission → unseal → encode → send → decode      no transaction open
    keep      recording or picture → artifact store
    record    job out of the live table, history and calls in; or back with a delay   1 statement

Each step takes the execution and returns a changed copy. Failure is a value, not an exception that jumps
floors.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from routing import failover
from routing.admission import check_input
from routing.breaker import Breakers
from routing.budgets import InTheWay, Reservation
from routing.cooldowns import Cooldowns
from routing.errors import RoutingError
from routing.narration import Narrator
from routing.resolver import resolve as resolve_plan
from routing.retry_budget import RetryBudget
from routing.snapshot import Snapshots
from routing.transport import Transport
from routing.values import Caller, Outcome, Plan, Reply, Request
from store.database import UNAVAILABLE, Pool, is_refusal
from store.vault import Vault
from workers import jobs, retry, spending, usage
from workers.artifacts import ArtifactError, Artifacts
from workers.completer import Completer
from workers.events import Events
from workers.leases import Leases
from workers.limits import SharedLimits
from workers.recent import Recent

logger = logging.getLogger(__name__)

_KEEP_PATIENCE_SECONDS = 60.0  # how long an answer waits for an artifact store that refuses it
_RECORD_PATIENCE_SECONDS = 600.0  # how long a finished run waits for a database that went away


@dataclass(frozen=True, slots=True)
class Tools:
    """What a worker process gives each run."""

    worker: str
    pool: Pool
    snapshots: Snapshots
    figures: Recent
    leases: Leases
    completer: Completer
    transport: Transport
    breakers: Breakers
    cooldowns: Cooldowns
    limits: SharedLimits
    budget: RetryBudget
    vault: Vault
    artifacts: Artifacts
    events: Events
    lease_seconds: float
    stopping: threading.Event


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of one job, as far as it has come."""

    job: jobs.Claimed
    plan: Plan | None = None
    request: Request | None = None
    narrator: Narrator | None = None
    outcome: Outcome | None = None
    artifact_key: str | None = None


def run(job_id: UUID, tools: Tools) -> None:
    """Run the job if it is due and nobody else has it, but more urgent ones of its lane first."""
    while not tools.stopping.is_set() and (job := claim(job_id, tools)) is not None:
        perform(job, tools)
        if job.id == job_id:
            return


def perform(job: jobs.Claimed, tools: Tools) -> None:
    """Take a claimed job to its record."""
    with tools.leases.held(job):
        execution = Execution(job)
        try:
            for step in (resolve, call, keep):
                execution = step(execution, tools)
        except UNAVAILABLE as error:  # before any call: the configuration could not be read
            give_back(job, tools, error)
            return
        except Exception:
            execution = replace(execution, outcome=_incident(execution))
        record(execution, tools)


def claim(job_id: UUID, tools: Tools) -> jobs.Claimed | None:
    """Take the job's lease. A database that does not answer leaves the job to the feeder's next doorbell."""
    try:
        with tools.pool.connection() as db:
            return jobs.claim(db, job_id, lease_seconds=tools.lease_seconds, worker=tools.worker)
    except UNAVAILABLE as error:
        logger.warning("Job %s stays queued, the database does not answer: %s", job_id, error)
        return None


def give_back(job: jobs.Claimed, tools: Tools, reason: Exception) -> None:
    """Return a job that has not begun, uncounted; where that fails too, its lease runs out."""
    logger.warning("Job %s goes back, the database does not answer: %s", job.id, reason)
    with suppress(UNAVAILABLE), tools.pool.connection() as db:
        jobs.release(db, {job.id: job.lease_token}, begun=False)


def resolve(execution: Execution, tools: Tools) -> Execution:
    """Decide the routes, from a snapshot at least as new as the claim."""
    job = execution.job
    snapshot = tools.snapshots.at_least(job.current_version)
    request = Request(
        feature=job.feature,
        input=job.input,
        caller=Caller(job.caller_admin_id, job.caller_role or ("admin" if job.caller_admin_id else None)),
        user_id=job.user_id,
        plan=job.plan,
        sticky=job.user_id or str(job.id),
    )
    try:
        plan = resolve_plan(snapshot, request, now=datetime.now(UTC), figures=tools.figures.current())
        if job.follows:  # nobody could check at the door what was not there yet
            check_input(plan.feature.input_schema, job.input)
    except RoutingError as error:
        refused = Outcome(attempts=(), error_class=error.error_class, error_message=error.message)
        return replace(execution, request=request, outcome=refused)
    if plan.routes and plan.assignment.strategy == "least_used":
        tools.figures.chose(plan.routes[0].model.id)
    return replace(
        execution,
        plan=plan,
        request=replace(request, deadline=_deadline(job, plan)),
        narrator=_narrator(job, tools) if job.stream else None,
    )


def call(execution: Execution, tools: Tools) -> Execution:
    """Try the plan's routes until one answers."""
    if execution.plan is None or execution.request is None:
        return execution
    outcome = failover.execute(
        execution.plan,
        execution.request,
        transport=tools.transport,
        breakers=tools.breakers,
        cooldowns=tools.cooldowns,
        limits=tools.limits,
        vault=tools.vault,
        budget=tools.budget,
        still_ours=lambda: tools.leases.is_ours(execution.job),
        reserve=lambda wanted: _reserve(execution.job, wanted, tools),
        narrator=execution.narrator,
    )
    return replace(execution, outcome=outcome)


def _narrator(job: jobs.Claimed, tools: Tools) -> Narrator:
    has_said = job.run > 1 and tools.events.has_said(job.id)
    return Narrator(tools.events.listener(job.id), has_said=has_said)


def _reserve(job: jobs.Claimed, wanted: Reservation, tools: Tools) -> InTheWay | None:
    with tools.pool.connection() as db:
        return spending.reserve(db, job.id, job.run, wanted)


def keep(execution: Execution, tools: Tools) -> Execution:
    """Put a recording or a picture into the artifact store. It was paid for: a store that refuses it is asked
    again."""
    outcome, job = execution.outcome, execution.job
    if outcome is None or outcome.reply is None or outcome.reply.artifact is None:
        return execution
    media_type = outcome.reply.media_type or "application/octet-stream"
    left = _seconds_left(execution)
    patience = _KEEP_PATIENCE_SECONDS if left is None else min(_KEEP_PATIENCE_SECONDS, left)
    give_up, pause = time.monotonic() + patience, 0.25
    while True:
        try:
            key = tools.artifacts.write(job.id, job.run, outcome.reply.artifact, media_type)
            return replace(execution, artifact_key=key)
        except ArtifactError as error:
            if time.monotonic() + pause > give_up or tools.stopping.wait(pause):
                failed = replace(
                    outcome, reply=None, error_class="configuration", error_message=str(error), retryable=True
                )
                return replace(execution, outcome=failed)
            logger.warning("Job %s waits to keep its artifact: %s", job.id, error)
            pause = min(pause * 2, 5.0)


def record(execution: Execution, tools: Tools) -> None:
    """End the run exactly once: succeeded, failed, or back in the queue."""
    outcome = execution.outcome
    assert outcome is not None, "a step always sets the outcome"  # noqa: S101
    rows = _rows(execution, tools)
    delay = _retry_delay(execution)
    write: Callable[[], bool]
    if delay is not None:
        cost = usage.known_cost(outcome.attempts)
        left = _seconds_left(execution)

        def write() -> bool:
            with tools.pool.connection() as db:
                return jobs.put_back(
                    db,
                    execution.job,
                    rows,
                    delay_seconds=delay,
                    is_retry=not outcome.is_wait,
                    cost_usd=cost,
                    seconds_left=left,
                )
    else:
        completion = jobs.Completion(execution.job, ending(execution), rows)

        def write() -> bool:
            return tools.completer.complete(completion)

    try:
        was_ours = _persist(execution.job, rows, write, tools)
    except Exception as error:
        logger.exception("Job %s: its record was refused.", execution.job.id)
        _record_refusal(execution, rows, error, tools)
        return
    if was_ours and delay is None and execution.job.stream:
        _tell_end(execution, outcome, tools)


def _tell_end(execution: Execution, outcome: Outcome, tools: Tools) -> None:
    """Tell who follows the job that it has ended. Who is not told finds its record."""
    text = outcome.reply.text if outcome.reply else None
    if text and execution.narrator is not None:
        execution.narrator.end(text)
    tools.events.ended(execution.job.id, "failed" if outcome.reply is None else "succeeded")


def _record_refusal(
    execution: Execution, rows: Sequence[usage.AttemptRow], error: Exception, tools: Tools
) -> None:
    """What must not be lost of a run whose record the database refuses: that it was, and what it cost."""
    outcome = execution.outcome
    ending = jobs.Ending(
        state="failed",
        error_class="server_error",
        error_message=f"The record of this run was refused: {type(error).__name__}.",
        cost_usd=usage.run_cost(outcome.attempts) if outcome else None,
    )
    bare = jobs.Completion(execution.job, ending, [replace(row, raw_usage=None) for row in rows])
    try:
        _persist(execution.job, bare.attempts, lambda: tools.completer.complete(bare), tools)
    except Exception:
        logger.exception("Job %s: its calls were refused, too.", execution.job.id)
        last = replace(bare, attempts=[])
        _persist(execution.job, [], lambda: tools.completer.complete(last), tools)


def _persist(
    job: jobs.Claimed, rows: Sequence[usage.AttemptRow], write: Callable[[], bool], tools: Tools
) -> bool:
    """Write until the database has answered. A lost answer is resolved by looking for our token in history;
    a lost lease leaves the calls behind as superseded, for they were paid for. Whether it was ours to end."""
    give_up = time.monotonic() + _RECORD_PATIENCE_SECONDS
    pause, in_doubt = 0.05, False
    while True:
        try:
            if write():
                return True
            with tools.pool.connection() as db:
                if in_doubt and jobs.was_recorded(db, job):
                    return True
                logger.warning("Job %s was taken over before run %d ended.", job.id, job.run)
                jobs.record_calls(db, usage.superseded(rows))
                return False
        except UNAVAILABLE as error:
            if is_refusal(error):
                raise
            if time.monotonic() > give_up:
                logger.critical("Job %s: run %d could not be recorded; it will run again.", job.id, job.run)
                return False
            logger.warning("Job %s: run %d waits to be recorded: %s", job.id, job.run, error)
            in_doubt = True
            time.sleep(pause)
            pause = min(pause * 2, 2.0)


def _deadline(job: jobs.Claimed, plan: Plan) -> float | None:
    """The instant, on the monotonic clock, by which the job must have ended: its own or its assignment's."""
    own = job.deadline_in
    assigned = plan.assignment.deadline_seconds
    left = [own] if own is not None else []
    if assigned is not None:
        left.append(assigned - job.age)
    return time.monotonic() + min(left) if left else None


def _retry_delay(execution: Execution) -> float | None:
    outcome, plan = execution.outcome, execution.plan
    if outcome is None or outcome.reply is not None or not outcome.retryable:
        return None
    if outcome.is_wait:
        return retry.wait(outcome.retry_after, seconds_left=_seconds_left(execution))
    policy = retry.Policy()
    if plan is not None:
        policy = retry.Policy(plan.assignment.max_retries, plan.assignment.retry_delay_seconds)
    return retry.delay(
        policy,
        retries=execution.job.retries,
        retry_after=outcome.retry_after,
        seconds_left=_seconds_left(execution),
    )


def _seconds_left(execution: Execution) -> float | None:
    """Until the job's deadline; None = it has none."""
    deadline = execution.request.deadline if execution.request else None
    return None if deadline is None else deadline - time.monotonic()


def ending(execution: Execution) -> jobs.Ending:
    """How a run that has its outcome ended, for its record."""
    plan, outcome = execution.plan, execution.outcome
    assert outcome is not None, "a step always sets the outcome"  # noqa: S101
    last = outcome.attempts[-1] if outcome.attempts else None
    route = outcome.route or (last.route if last else None)
    prompt = plan.assignment.prompt if plan else None
    reply = outcome.reply
    spent = reply.usage if reply else None
    return jobs.Ending(
        state="failed" if reply is None else "succeeded",
        result=_result(reply) if reply else None,
        artifact_key=execution.artifact_key,
        error_class=outcome.error_class,
        error_message=outcome.error_message,
        provider=route.provider.slug if route else None,
        model=route.model.model_id if route else None,
        config_version=plan.config_version if plan else execution.job.current_version,
        assignment_id=plan.assignment.id if plan else None,
        prompt_version=prompt.version if prompt else None,
        key_version=route.key_version if route else None,
        input_tokens=spent.input_tokens if spent else None,
        output_tokens=spent.output_tokens if spent else None,
        cached_tokens=spent.cached_tokens if spent else None,
        reasoning_tokens=spent.reasoning_tokens if spent else None,
        tokens_estimated=spent.estimated if spent else False,
        cost_usd=usage.run_cost(outcome.attempts),
        latency_ms=last.latency_ms if last else None,
        routing=_routing(plan) if plan else None,
    )


def _routing(plan: Plan) -> dict[str, Any] | None:
    """What `job_history.routing` keeps; nothing where there was nothing to choose."""
    if len(plan.routes) + len(plan.passed_over) < 2:
        return None
    return {
        "strategy": plan.assignment.strategy,
        "routes": [{"provider": route.provider.slug, "model": route.model.model_id} for route in plan.routes],
        "passed_over": [
            {
                "provider": over.provider,
                "model": over.model,
                "error_class": over.error_class,
                "reason": over.reason,
            }
            for over in plan.passed_over
        ],
    }


def _result(reply: Reply) -> dict[str, Any]:
    """What `job_history.result` keeps: the members that the reply has."""
    members: dict[str, Any] = {
        "text": reply.text,
        "data": reply.data,
        "media_type": reply.media_type,
        "flagged": reply.flagged,
        "finish_reason": reply.finish_reason.value,
    }
    if reply.embeddings:
        members["embedding"] = list(reply.embeddings[0])
        if len(reply.embeddings) > 1:
            members["embeddings"] = [list(vector) for vector in reply.embeddings]
    return {name: value for name, value in members.items() if value is not None}


def _rows(execution: Execution, tools: Tools) -> list[usage.AttemptRow]:
    if execution.plan is None or execution.outcome is None:
        return []
    job = execution.job
    return usage.rows(
        execution.outcome.attempts,
        execution.plan,
        job_id=job.id,
        run=job.run,
        user_id=job.user_id,
        caller_admin_id=job.caller_admin_id,
        worker=tools.worker,
    )


def _incident(execution: Execution) -> Outcome:
    """An error of our own, logged under a number that the job's message carries. The job tries again."""
    incident = uuid4().hex[:12]
    logger.exception("Incident %s in job %s.", incident, execution.job.id)
    attempts = execution.outcome.attempts if execution.outcome else ()
    return Outcome(
        attempts=attempts,
        error_class="server_error",
        error_message=f"An internal error stopped this run; the worker's log has it as incident {incident}.",
        retryable=True,
    )
