"""The SQL of `workers/jobs.py`. PostgreSQL 15 and newer."""

INSERT = """
INSERT INTO jobs (id, feature, capability, lane, priority, input, user_id, plan, metadata, caller_admin_id,
                  token_id, run_at, deadline_at, rung_at)
SELECT %(id)s, %(feature)s, %(capability)s, %(lane)s, %(priority)s, %(input)s, %(user_id)s, %(plan)s,
       %(metadata)s, %(caller_admin_id)s::uuid, %(token_id)s::uuid, coalesce(%(run_at)s::timestamptz, now()),
       now() + %(deadline_seconds)s::float8 * interval '1 second', CASE WHEN %(rung)s THEN now() END
FROM config_state WHERE version = %(config_version)s
ON CONFLICT (id) DO UPDATE SET rung_at = jobs.rung_at
RETURNING id"""

CLAIM = """
UPDATE jobs
SET state = 'running', run = run + 1, started_at = now(), worker = %(worker)s, lease_token = %(token)s,
    lease_until = now() + %(lease)s * interval '1 second'
FROM (
    SELECT id FROM jobs
    WHERE id = %(id)s
      AND ((state = 'queued' AND run_at <= now())
           OR (state = 'running' AND lease_until < now()
               AND pg_postmaster_start_time() < now() - %(lease)s * interval '1 second'))
    FOR UPDATE SKIP LOCKED
) due
WHERE jobs.id = due.id
RETURNING jobs.id, feature, capability, lane, input, user_id, plan, caller_admin_id, run, retries,
    lease_token, started_at, extract(epoch FROM now() - created_at)::float8 AS age,
    extract(epoch FROM deadline_at - now())::float8 AS deadline_in,
    (SELECT role FROM admins WHERE admins.id = caller_admin_id) AS caller_role,
    (SELECT version FROM config_state) AS current_version,
    set_config('synchronous_commit', 'off', true)"""

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

INSERT_CALLS = """
INSERT INTO ai_usage_analytics (
    job_id, run, n, finished_at, started_at, feature, capability, lane, user_id, caller_admin_id, provider_id,
    provider, model_row_id, model, served_model, outcome, called, breaker, error_class, error_message, status,
    request_id, latency_ms, input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
    characters, seconds, images, tokens_estimated, raw_usage, price, cost_usd, config_version, assignment_id,
    prompt_version, key_version, worker)
SELECT job_id, run, n, finished_at, started_at, feature, capability, lane, user_id, caller_admin_id,
    provider_id, provider, model_row_id, model, served_model, outcome, called, breaker, error_class,
    error_message, status, request_id, latency_ms, input_tokens, output_tokens, cached_tokens,
    cache_write_tokens, reasoning_tokens, characters, seconds, images, tokens_estimated, raw_usage,
    price, cost_usd, config_version, assignment_id, prompt_version, key_version, worker
FROM jsonb_populate_recordset(NULL::ai_usage_analytics, %(attempts)s)"""

COMPLETE = f"""
WITH ended AS (
    DELETE FROM jobs WHERE id = %(id)s AND lease_token = %(token)s RETURNING *
), recorded AS (
    INSERT INTO job_history (
        id, feature, capability, lane, priority, state, input, user_id, plan, metadata, caller_admin_id,
        token_id, created_at, run_at, deadline_at, started_at, finished_at, run, retries, calls, result,
        artifact_key, error_class, error_message, provider, model, config_version, assignment_id,
        prompt_version, key_version, input_tokens, output_tokens, cached_tokens, reasoning_tokens,
        tokens_estimated, cost_usd, latency_ms,
        lease_token, worker)
    SELECT
        id, feature, capability, lane, priority, %(state)s, input, user_id, plan, metadata, caller_admin_id,
        token_id, created_at, run_at, deadline_at, started_at, now(), run, retries, calls + %(calls)s,
        %(result)s, %(artifact_key)s, %(error_class)s, %(error_message)s, %(provider)s, %(model)s,
        %(config_version)s, %(assignment_id)s::uuid, %(prompt_version)s, %(key_version)s, %(input_tokens)s,
        %(output_tokens)s, %(cached_tokens)s, %(reasoning_tokens)s, %(tokens_estimated)s,
        cost_usd + %(cost_usd)s, %(latency_ms)s, lease_token, worker
    FROM ended
), calls AS (
    {INSERT_CALLS} WHERE EXISTS (SELECT FROM ended) ON CONFLICT DO NOTHING
)
SELECT id FROM ended"""

PUT_BACK = f"""
WITH ended AS (
    DELETE FROM jobs WHERE id = %(id)s AND lease_token = %(token)s RETURNING *
), again AS (
    INSERT INTO jobs (
        id, feature, capability, lane, priority, input, user_id, plan, metadata, caller_admin_id, token_id,
        created_at, run_at, deadline_at, run, retries, calls, cost_usd)
    SELECT
        id, feature, capability, lane, priority, input, user_id, plan, metadata, caller_admin_id, token_id,
        created_at, now() + %(delay)s * interval '1 second', deadline_at, run, retries + 1,
        calls + %(calls)s, cost_usd + %(cost_usd)s
    FROM ended
), calls AS (
    {INSERT_CALLS} WHERE EXISTS (SELECT FROM ended) ON CONFLICT DO NOTHING
)
SELECT id FROM ended"""

WAS_RECORDED = """
SELECT FROM job_history
WHERE id = %(id)s AND lease_token = %(token)s AND finished_at > now() - interval '1 day'
UNION ALL
SELECT FROM ai_usage_analytics
WHERE job_id = %(id)s AND run = %(run)s AND finished_at > now() - interval '1 day'"""

RECORD_CALLS = f"{INSERT_CALLS} ON CONFLICT DO NOTHING"

RELEASE = """
UPDATE jobs SET state = 'queued', lease_token = NULL, lease_until = NULL, rung_at = NULL
FROM (
    SELECT jobs.id FROM jobs
    JOIN unnest(%(ids)s::uuid[], %(tokens)s::uuid[]) AS held (id, token)
      ON jobs.id = held.id AND jobs.lease_token = held.token
    ORDER BY jobs.id FOR UPDATE OF jobs
) mine
WHERE jobs.id = mine.id"""

RESCUE = """
UPDATE jobs SET state = 'queued', lease_token = NULL, lease_until = NULL, rung_at = NULL
FROM (
    SELECT id FROM jobs
    WHERE state = 'running' AND lease_until < now()
      AND pg_postmaster_start_time() < now() - %(lease)s * interval '1 second'
    ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED
) silent
WHERE jobs.id = silent.id
RETURNING jobs.id"""

TAKE_UNRUNG = """
WITH taken AS (
    UPDATE jobs SET rung_at = now()
    FROM (
        SELECT id FROM jobs
        WHERE lane = %(lane)s AND state = 'queued' AND run_at <= now()
          AND (rung_at IS NULL OR rung_at < now() - %(again)s * interval '1 second')
        ORDER BY priority, id LIMIT %(room)s FOR UPDATE SKIP LOCKED
    ) due
    WHERE jobs.id = due.id
    RETURNING jobs.id, capability, priority
)
SELECT id, capability FROM taken ORDER BY priority, id"""

UNRING = """
UPDATE jobs SET rung_at = NULL
FROM (SELECT id FROM jobs WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE) silent
WHERE jobs.id = silent.id"""
