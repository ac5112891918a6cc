-- Jobs. `jobs` holds only what is queued or running; what has ended moves to `job_history` in the statement that
-- ends it, together with its calls in `ai_usage_analytics`.

-- Claims and heartbeats rewrite rows in place: half of each page is kept free for that (HOT updates), and no
-- indexed column ever changes. A retry deletes the row and inserts it anew.
CREATE TABLE jobs (
    id uuid NOT NULL,
    feature text NOT NULL,
    capability text NOT NULL,
    lane text NOT NULL,
    priority smallint NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'queued',
    input jsonb NOT NULL,
    user_id text,
    plan text,
    metadata jsonb NOT NULL DEFAULT '{}',
    caller_admin_id uuid,
    token_id uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    run_at timestamptz NOT NULL DEFAULT now(),
    deadline_at timestamptz,
    run integer NOT NULL DEFAULT 0,
    retries integer NOT NULL DEFAULT 0,
    calls integer NOT NULL DEFAULT 0,
    cost_usd numeric NOT NULL DEFAULT 0,
    config_version bigint,
    started_at timestamptz,
    lease_token uuid,
    lease_until timestamptz,
    worker text,
    rung_at timestamptz,
    CONSTRAINT pk_jobs PRIMARY KEY (id),
    CONSTRAINT ck_jobs_state CHECK (state IN ('queued', 'running')),
    CONSTRAINT ck_jobs_lane CHECK (lane IN ('interactive', 'standard', 'batch'))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX ix_jobs_lane_priority_id ON jobs (lane, priority, id);

COMMENT ON COLUMN jobs.priority IS 'lower runs first inside its lane';
COMMENT ON COLUMN jobs.run IS 'how often the job was claimed; the run of an attempt';
COMMENT ON COLUMN jobs.retries IS 'how often a failed run put the job back';
COMMENT ON COLUMN jobs.calls IS 'provider calls of the runs before this one';
COMMENT ON COLUMN jobs.lease_token IS 'fence: made anew by each claim; only its holder may end the run';
COMMENT ON COLUMN jobs.rung_at IS 'when the last doorbell was rung; a doorbell may be lost';

CREATE TABLE job_history (
    id uuid NOT NULL,
    feature text NOT NULL,
    capability text NOT NULL,
    lane text NOT NULL,
    priority smallint NOT NULL,
    state text NOT NULL,
    input jsonb NOT NULL,
    user_id text,
    plan text,
    metadata jsonb NOT NULL,
    caller_admin_id uuid,
    token_id uuid,
    created_at timestamptz NOT NULL,
    run_at timestamptz NOT NULL,
    deadline_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz NOT NULL,
    run integer NOT NULL,
    retries integer NOT NULL,
    calls integer NOT NULL,
    result jsonb,
    artifact_key text,
    error_class text,
    error_message text,
    provider text,
    model text,
    config_version bigint,
    assignment_id uuid,
    prompt_version integer,
    key_version integer,
    input_tokens bigint,
    output_tokens bigint,
    cached_tokens bigint,
    reasoning_tokens bigint,
    tokens_estimated boolean NOT NULL DEFAULT false,
    cost_usd numeric,
    latency_ms integer,
    lease_token uuid,
    worker text,
    CONSTRAINT pk_job_history PRIMARY KEY (id, finished_at),
    CONSTRAINT ck_job_history_state CHECK (state IN ('succeeded', 'failed', 'cancelled'))
) PARTITION BY RANGE (finished_at);

-- One row per call (or per route passed over because its breaker was open). The key is what makes writing a
-- run's calls twice harmless.
CREATE TABLE ai_usage_analytics (
    job_id uuid NOT NULL,
    run integer NOT NULL,
    n integer NOT NULL,
    finished_at timestamptz NOT NULL,
    started_at timestamptz NOT NULL,
    feature text NOT NULL,
    capability text NOT NULL,
    lane text NOT NULL,
    user_id text,
    caller_admin_id uuid,
    provider_id uuid,
    provider text,
    model_row_id uuid,
    model text,
    served_model text,
    outcome text NOT NULL,
    called boolean NOT NULL,
    breaker text,
    error_class text,
    error_message text,
    status integer,
    request_id text,
    latency_ms integer,
    input_tokens bigint,
    output_tokens bigint,
    cached_tokens bigint,
    cache_write_tokens bigint,
    reasoning_tokens bigint,
    characters bigint,
    seconds double precision,
    images integer,
    tokens_estimated boolean NOT NULL DEFAULT false,
    raw_usage jsonb,
    price jsonb,
    cost_usd numeric,
    config_version bigint,
    assignment_id uuid,
    prompt_version integer,
    key_version integer,
    worker text,
    CONSTRAINT pk_ai_usage_analytics PRIMARY KEY (job_id, run, n, finished_at),
    CONSTRAINT ck_ai_usage_analytics_outcome CHECK (outcome IN ('succeeded', 'failed', 'superseded', 'lost'))
) PARTITION BY RANGE (finished_at);

-- A partition a day (UTC), made ahead. Built beside and then attached: that takes a lock which writers pass.
CREATE FUNCTION ensure_partitions(first_day date, days integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    parent text;
    day date;
    name text;
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('orrery.ensure_partitions'));
    FOREACH parent IN ARRAY ARRAY['job_history', 'ai_usage_analytics'] LOOP
        FOR day IN SELECT generate_series(first_day, first_day + days - 1, interval '1 day')::date LOOP
            name := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
            CONTINUE WHEN to_regclass(name) IS NOT NULL;
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', name, parent);
            EXECUTE format(
                'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name,
                day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;

SELECT ensure_partitions((now() AT TIME ZONE 'UTC')::date - 1, 15);
