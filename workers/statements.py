"""The SQL of `workers/jobs.py`. PostgreSQL 15 and newer."""

# What a job belongs to; goes with it wherever it goes.
_BONDS = "group_id, parent_id, chain_id, follow_ups, callback_url"

_COLUMNS = """id, feature, capability, lane, priority, input, user_id, plan, metadata, caller_admin_id,
    token_id, run_at, scheduled, deadline_at, rung_at, retry_of, stream, chain_id, follow_ups,
    callback_url"""

_VALUES = """%(id)s, %(feature)s, %(capability)s, %(lane)s, %(priority)s, %(input)s, %(user_id)s, %(plan)s,
    %(metadata)s, %(caller_admin_id)s::uuid, %(token_id)s::uuid, coalesce(%(run_at)s::timestamptz, now()),
    coalesce(%(run_at)s::timestamptz > now(), false),
    coalesce(%(run_at)s::timestamptz, now()) + %(deadline_seconds)s::float8 * interval '1 second',
    CASE WHEN %(rung)s THEN now() END, %(retry_of)s::uuid, %(stream)s,
    CASE WHEN %(follow_ups)s::jsonb IS NOT NULL THEN %(id)s END, %(follow_ups)s::jsonb, %(callback_url)s"""

INSERT = f"""
INSERT INTO jobs ({_COLUMNS})
SELECT {_VALUES} FROM config_state WHERE version = %(config_version)s
ON CONFLICT (id) DO UPDATE SET rung_at = jobs.rung_at
RETURNING id"""

# Of several callers with one key the first writes it; the others wait here until it has committed.
INSERT_ONCE = f"""
WITH key AS (
    INSERT INTO idempotency_keys (scope, key, request_hash, job_id)
    SELECT %(scope)s, %(key)s, %(request_hash)s, %(id)s FROM config_state WHERE version = %(config_version)s
    ON CONFLICT DO NOTHING RETURNING job_id
)
INSERT INTO jobs ({_COLUMNS}) SELECT {_VALUES} FROM key RETURNING id"""

FIND_KEY = "SELECT request_hash, job_id FROM idempotency_keys WHERE scope = %(scope)s AND key = %(key)s"

FORGET_KEYS = "DELETE FROM idempotency_keys WHERE created_at < now() - interval '24 hours'"

_CLAIMED = """
UPDATE jobs
SET state = 'running', run = run + 1, started_at = now(), worker = %(worker)s, lease_token = %(token)s,
    lease_until = now() + %(lease)s * interval '1 second', alone = suspect
FROM chosen
WHERE jobs.id = chosen.id
RETURNING jobs.id, feature, capability, lane, input, user_id, plan, caller_admin_id, run, retries,
    lease_token, started_at, extract(epoch FROM now() - greatest(created_at, run_at))::float8 AS age,
    extract(epoch FROM deadline_at - now())::float8 AS deadline_in, stream,
    parent_id IS NOT NULL AS follows,
    (SELECT role FROM admins WHERE admins.id = caller_admin_id) AS caller_role,
    (SELECT version FROM config_state) AS current_version,
    set_config('synchronous_commit', 'off', true)"""

_OPEN_LANE = "NOT EXISTS (SELECT FROM lanes WHERE lanes.name = jobs.lane AND lanes.is_paused)"

# Expired leases are the rescue's: their jobs may have killed their workers, and run alone from then on.
CLAIM = f"""
WITH rung AS (
    SELECT lane, priority FROM jobs WHERE id = %(id)s
), urgent AS (
    SELECT jobs.id FROM jobs JOIN rung ON jobs.lane = rung.lane AND jobs.priority < rung.priority
    WHERE state = 'queued' AND NOT scheduled AND NOT suspect AND NOT use_batch AND {_OPEN_LANE}
    ORDER BY jobs.priority, jobs.id LIMIT 1 FOR UPDATE OF jobs SKIP LOCKED
), own AS (
    SELECT id FROM jobs
    WHERE id = %(id)s AND state = 'queued' AND NOT scheduled AND NOT suspect AND NOT use_batch AND
    {_OPEN_LANE}
      AND NOT EXISTS (SELECT FROM urgent)
    FOR UPDATE SKIP LOCKED
), chosen AS (
    SELECT id FROM urgent UNION ALL SELECT id FROM own
)
{_CLAIMED}"""

# Held until the claim is committed, so that the next one of this machine sees it.
ONE_CLAIM_A_MACHINE = "SELECT pg_advisory_xact_lock(hashtext('orrery suspects'), hashtext(%(machine)s))"

# One death may take a whole container with it, or a machine. So what has crashed alone once has its last
# trial with no suspect beside it.
CLAIM_SUSPECT = f"""
WITH chosen AS (
    SELECT id FROM jobs
    WHERE suspect AND state = 'queued' AND NOT scheduled AND {_OPEN_LANE}
      AND NOT EXISTS (
        SELECT FROM jobs beside
        WHERE beside.suspect AND beside.state = 'running' AND (beside.crashes > 0 OR jobs.crashes > 0)
          AND starts_with(beside.worker, %(machine)s || ':'))
    ORDER BY crashes, id LIMIT 1 FOR UPDATE SKIP LOCKED
)
{_CLAIMED}"""

COUNT_SUSPECTS = f"""
SELECT count(*) FILTER (WHERE state = 'queued' AND NOT scheduled AND {_OPEN_LANE}) AS waiting,
    count(*) FILTER (WHERE state = 'running') AS running
FROM jobs WHERE suspect"""

ANY_LATE = """
SELECT FROM jobs
WHERE state = 'running' AND lease_until < now() + %(lease)s / 2 * interval '1 second' LIMIT 1"""

HEARTBEAT = """
UPDATE jobs SET lease_until = now() + %(lease)s * interval '1 second'
FROM (
    SELECT jobs.id FROM jobs
    JOIN unnest(%(ids)s::uuid[], %(tokens)s::uuid[]) AS held (id, token)
      ON jobs.id = held.id AND jobs.lease_token = held.token
    ORDER BY jobs.id FOR UPDATE OF jobs
) mine
WHERE jobs.id = mine.id
RETURNING jobs.id"""

_INSERT_CALLS = """
INSERT INTO ai_usage_analytics (
    job_id, run, n, finished_at, started_at, feature, capability, lane, user_id, caller_admin_id, provider_id,
    provider, model_row_id, model, served_model, outcome, called, failover, breaker, error_class,
    error_message, status, request_id, latency_ms, input_tokens, output_tokens, cached_tokens,
    cache_write_tokens, reasoning_tokens, characters, seconds, images, tokens_estimated, raw_usage, price,
    cost_usd, config_version, assignment_id, prompt_version, key_version, worker)
SELECT job_id, run, n, finished_at, started_at, feature, capability, lane, user_id, caller_admin_id,
    provider_id, provider, model_row_id, model, served_model, outcome, called, failover, breaker, error_class,
    error_message, status, request_id, latency_ms, input_tokens, output_tokens, cached_tokens,
    cache_write_tokens, reasoning_tokens, characters, seconds, images, tokens_estimated, raw_usage,
    price, cost_usd, config_version, assignment_id, prompt_version, key_version, worker
FROM jsonb_populate_recordset(NULL::ai_usage_analytics, %(attempts)s)"""

COMPLETE = f"""
WITH ending AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(endings)s) AS row (
        id uuid, token uuid, state text, result jsonb, artifact_key text, error_class text,
        error_message text, provider text, model text, config_version bigint, assignment_id uuid,
        prompt_version integer, key_version integer, input_tokens bigint, output_tokens bigint,
        cached_tokens bigint, reasoning_tokens bigint, tokens_estimated boolean, cost_usd numeric,
        latency_ms integer, routing jsonb, new_calls integer)
), locked AS (
    SELECT jobs.id FROM jobs JOIN ending ON jobs.id = ending.id AND jobs.lease_token = ending.token
    ORDER BY jobs.id FOR UPDATE OF jobs
), ended AS (
    DELETE FROM jobs USING locked WHERE jobs.id = locked.id RETURNING jobs.*
), recorded AS (
    INSERT INTO job_history (
        id, feature, capability, lane, priority, state, input, user_id, plan, metadata, caller_admin_id,
        token_id, created_at, run_at, deadline_at, started_at, finished_at, run, retries, calls, result,
        artifact_key, error_class, error_message, provider, model, config_version, assignment_id,
        prompt_version, key_version, input_tokens, output_tokens, cached_tokens, reasoning_tokens,
        tokens_estimated, cost_usd, latency_ms, routing, lease_token, worker, retry_of, crashes, {_BONDS},
        batch_id)
    SELECT
        ended.id, feature, capability, lane, priority, ending.state, input, user_id, plan, metadata,
        caller_admin_id, token_id, created_at, run_at, deadline_at, started_at, now(), run, retries,
        calls + new_calls, result, artifact_key, error_class, error_message, provider, model,
        ending.config_version, assignment_id, prompt_version, key_version, input_tokens, output_tokens,
        cached_tokens, reasoning_tokens, tokens_estimated, ended.cost_usd + ending.cost_usd, latency_ms,
        routing, lease_token, worker, retry_of, crashes, {_BONDS}, batch_id
    FROM ended JOIN ending ON ending.id = ended.id AND ending.token = ended.lease_token
), calls AS (
    {_INSERT_CALLS} WHERE job_id IN (SELECT id FROM ended) ON CONFLICT DO NOTHING
)
SELECT id FROM ended"""

PUT_BACK = f"""
WITH ended AS (
    DELETE FROM jobs WHERE id = %(id)s AND lease_token = %(token)s RETURNING *
), again AS (
    INSERT INTO jobs (
        id, feature, capability, lane, priority, input, user_id, plan, metadata, caller_admin_id, token_id,
        created_at, run_at, scheduled, deadline_at, run, retries, calls, cost_usd, retry_of, stream, crashes,
        {_BONDS})
    SELECT
        id, feature, capability, lane, priority, input, user_id, plan, metadata, caller_admin_id, token_id,
        created_at, now() + %(delay)s * interval '1 second', %(delay)s > 0,
        least(deadline_at, now() + %(seconds_left)s::float8 * interval '1 second'), run,
        retries + %(retries)s, calls + %(calls)s, cost_usd + %(cost_usd)s, retry_of, stream, crashes,
        {_BONDS}
    FROM ended
), calls AS (
    {_INSERT_CALLS} WHERE EXISTS (SELECT FROM ended) ON CONFLICT DO NOTHING
)
SELECT id FROM ended"""

# Not by the run's number: where PostgreSQL lost a claim, two runs of a job have the same.
WAS_RECORDED = """
SELECT FROM job_history
WHERE id = %(id)s AND lease_token = %(token)s AND finished_at > now() - interval '1 day'"""

RECORD_CALLS = f"{_INSERT_CALLS} ON CONFLICT DO NOTHING"


def _lost(event: str, runs: str) -> str:
    """Record that each of `runs` may have left a billed call behind. `n` 0 is no number of a real call."""
    return f"""INSERT INTO ai_usage_analytics (
        job_id, run, n, finished_at, started_at, feature, capability, lane, user_id, caller_admin_id, outcome,
        called, error_class, error_message, worker)
    SELECT id, run, 0, now(), started_at, feature, capability, lane, user_id, caller_admin_id, 'lost', true,
        'connection', '{event}; a call may have been under way, and billed.', worker
    FROM {runs}
    ON CONFLICT DO NOTHING"""


RELEASE = f"""
WITH mine AS (
    SELECT jobs.id FROM jobs
    JOIN unnest(%(ids)s::uuid[], %(tokens)s::uuid[]) AS held (id, token)
      ON jobs.id = held.id AND jobs.lease_token = held.token
    ORDER BY jobs.id FOR UPDATE OF jobs
), released AS (
    UPDATE jobs
    SET state = 'queued', lease_token = NULL, lease_until = NULL, rung_at = NULL, alone = false
    FROM mine WHERE jobs.id = mine.id
    RETURNING jobs.*
), lost AS (
    {_lost("The worker was stopped", "released WHERE %(begun)s")}
)
SELECT id FROM released"""

RESCUE = f"""
WITH silent AS (
    SELECT id, alone, alone AND crashes + 1 >= %(most_crashes)s AS poison FROM jobs
    WHERE state = 'running' AND lease_until < now()
      AND pg_postmaster_start_time() < now() - %(lease)s * interval '1 second'
    ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED
), poisoned AS (
    DELETE FROM jobs USING silent WHERE jobs.id = silent.id AND silent.poison RETURNING jobs.*
), recorded AS (
    INSERT INTO job_history (
        id, feature, capability, lane, priority, state, input, user_id, plan, metadata, caller_admin_id,
        token_id, created_at, run_at, deadline_at, started_at, finished_at, run, retries, calls, error_class,
        error_message, cost_usd, worker, retry_of, crashes, {_BONDS})
    SELECT
        id, feature, capability, lane, priority, 'failed', input, user_id, plan, metadata, caller_admin_id,
        token_id, created_at, run_at, deadline_at, started_at, now(), run, retries, calls, 'poison',
        'Its worker process died each time it ran this job alone.', cost_usd, worker, retry_of, crashes + 1,
        {_BONDS}
    FROM poisoned
), back AS (
    UPDATE jobs SET state = 'queued', lease_token = NULL, lease_until = NULL, rung_at = NULL, suspect = true,
        alone = false, crashes = crashes + silent.alone::integer
    FROM silent WHERE jobs.id = silent.id AND NOT silent.poison
    RETURNING jobs.*
), lost AS (
    {_lost("The worker died", "(SELECT * FROM back UNION ALL SELECT * FROM poisoned) died")}
)
SELECT id, poison FROM silent"""

TAKE_UNRUNG = """
WITH taken AS (
    UPDATE jobs SET rung_at = now()
    FROM (
        SELECT id FROM jobs JOIN lanes ON lanes.name = jobs.lane AND NOT is_paused
        WHERE lane = %(lane)s AND state = 'queued' AND NOT scheduled AND NOT suspect AND NOT use_batch
          AND (rung_at IS NULL OR rung_at < now() - %(again)s * interval '1 second' OR rung_at < resumed_at)
        ORDER BY priority, id LIMIT %(room)s FOR UPDATE OF jobs SKIP LOCKED
    ) due
    WHERE jobs.id = due.id
    RETURNING jobs.id, capability, priority
)
SELECT id, capability FROM taken ORDER BY priority, id"""

COME_DUE = """
UPDATE jobs SET scheduled = false
FROM (
    SELECT id FROM jobs WHERE scheduled AND run_at <= now()
    ORDER BY run_at LIMIT 5000 FOR UPDATE SKIP LOCKED
) due
WHERE jobs.id = due.id"""

# A turn in the future: the clock was set back, and nobody shall wait until then.
TAKE_TURN = """
UPDATE feeder_state SET turned_at = now()
WHERE turned_at <= now() - %(pause)s * interval '1 second' OR turned_at > now() RETURNING turned_at"""

UNRING = """
UPDATE jobs SET rung_at = NULL
FROM (SELECT id FROM jobs WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE) silent
WHERE jobs.id = silent.id"""

CANCEL = "SELECT cancel_jobs(%(ids)s) AS id"

COUNT_UNFINISHED = """
SELECT count(*) AS unfinished FROM (SELECT FROM jobs WHERE feature = %(feature)s LIMIT %(most)s) AS found"""

# One connection serves one bulk, in transactions of a moment each: a caller who sends slowly must not hold
# back the clean-up of the live table. The table goes with its connection.
CREATE_BULK = """
CREATE TEMPORARY TABLE bulk_jobs (
    id uuid, feature text, capability text, lane text, priority smallint, input jsonb, user_id text,
    plan text, metadata jsonb, run_at timestamptz, deadline_seconds float8, retry_of uuid,
    stream boolean, follow_ups jsonb, callback_url text)"""

COPY_BULK = "COPY bulk_jobs FROM STDIN"

INSERT_BULK = f"""
INSERT INTO jobs ({_COLUMNS})
SELECT id, feature, capability, lane, priority, input, user_id, plan, metadata, %(caller_admin_id)s::uuid,
    %(token_id)s::uuid, coalesce(run_at, now()), coalesce(run_at > now(), false),
    coalesce(run_at, now()) + deadline_seconds * interval '1 second', NULL, retry_of, stream,
    CASE WHEN follow_ups IS NOT NULL THEN id END, follow_ups, callback_url
FROM bulk_jobs
WHERE EXISTS (SELECT FROM config_state WHERE version = %(config_version)s)"""

KEEP_KEY = """
INSERT INTO idempotency_keys (scope, key, request_hash, job_id)
VALUES (%(scope)s, %(key)s, %(request_hash)s, %(id)s) ON CONFLICT DO NOTHING RETURNING job_id"""
