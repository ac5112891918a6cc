-- What the calls add up to: rollups, views for reporting tools, alerts, workers and the health of providers.

-- --- Rollups ------------------------------------------------------------------------------------------

-- Which transaction recorded a call decides when it is counted; time cannot, for a transaction may commit later
-- than one that began after it. Calls that are here already get the number of this transaction.
ALTER TABLE ai_usage_analytics ADD COLUMN xid xid8 DEFAULT pg_current_xact_id();
COMMENT ON COLUMN ai_usage_analytics.xid IS 'who recorded the call; NULL: counted in another cluster';
CREATE INDEX ix_ai_usage_analytics_xid ON ai_usage_analytics (xid);

-- For lists of calls, newest first: of all, and of one end user, whose calls lie far apart. An index cannot hold
-- texts of any length, and jobs must end whatever their user is called.
CREATE INDEX ix_ai_usage_analytics_finished_at ON ai_usage_analytics (finished_at);
CREATE INDEX ix_ai_usage_analytics_user_id_finished_at ON ai_usage_analytics (left(user_id, 200), finished_at)
    WHERE user_id IS NOT NULL;

-- What `counted` sees has been counted, and nothing else. `cluster` is PostgreSQL's own number: transactions of
-- another cluster have numbers that say nothing here.
CREATE TABLE usage_rollup (
    only_row boolean NOT NULL DEFAULT true,
    counted pg_snapshot NOT NULL DEFAULT '3:3:',
    counted_at timestamptz NOT NULL DEFAULT '-infinity',
    cluster bigint NOT NULL,
    CONSTRAINT pk_usage_rollup PRIMARY KEY (only_row),
    CONSTRAINT ck_usage_rollup_only_row CHECK (only_row)
) WITH (fillfactor = 10);
INSERT INTO usage_rollup (cluster) SELECT system_identifier FROM pg_control_system();

-- `whole` as if nothing from transaction `cut` on had begun.
CREATE FUNCTION snapshot_before(whole pg_snapshot, cut xid8) RETURNS pg_snapshot LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN cut >= pg_snapshot_xmax(whole) THEN whole ELSE
        format('%s:%s:%s', least(pg_snapshot_xmin(whole), cut), cut, (
            SELECT string_agg(running::text, ',' ORDER BY running)
            FROM pg_snapshot_xip(whole) AS running WHERE running < cut
        ))::pg_snapshot
    END
$$;

-- After a dump was restored into another cluster, or after pg_upgrade: what was not counted there is counted here,
-- and nothing twice. To be called before anything is recorded in the new cluster; `orrery migrate` does.
CREATE FUNCTION usage_rebase() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    here CONSTANT bigint := (SELECT system_identifier FROM pg_control_system());
    state usage_rollup;
BEGIN
    SELECT * INTO STRICT state FROM usage_rollup;
    IF state.cluster = here THEN
        RETURN false;
    END IF;
    SELECT * INTO STRICT state FROM usage_rollup FOR UPDATE;
    IF state.cluster = here THEN
        RETURN false;
    END IF;
    LOCK TABLE ai_usage_analytics IN SHARE ROW EXCLUSIVE MODE;
    UPDATE ai_usage_analytics
    SET xid = CASE WHEN pg_visible_in_snapshot(xid, state.counted) THEN NULL ELSE pg_current_xact_id() END
    WHERE NOT pg_visible_in_snapshot(xid, state.counted) OR xid >= pg_current_xact_id();
    UPDATE usage_rollup
    SET counted = snapshot_before(pg_current_snapshot(), pg_current_xact_id()), cluster = here;
    RETURN true;
END $$;

-- `calls` reached a provider; the other attempts found its breaker open, or could not be encoded. `unpriced_calls`
-- cost something nobody knows: they are in no sum of `cost_usd`. `ms_100` counts calls that took at most 100 ms
-- and more than the bound before it, `ms_more` those that took longer than five minutes.
CREATE TABLE usage_hourly (
    hour timestamptz NOT NULL,
    provider_id uuid,
    provider text,
    model text,
    feature text NOT NULL,
    outcome text NOT NULL,
    error_class text,
    attempts integer NOT NULL,
    calls integer NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    characters bigint NOT NULL,
    seconds double precision NOT NULL,
    images integer NOT NULL,
    cost_usd numeric NOT NULL,
    unpriced_calls integer NOT NULL,
    latency_ms_sum bigint NOT NULL,
    latency_ms_max integer NOT NULL
) WITH (fillfactor = 70);

-- The same by the day (UTC): most questions are about days, and a month has twenty-four times as many hours.
CREATE TABLE usage_daily (LIKE usage_hourly);
ALTER TABLE usage_daily RENAME COLUMN hour TO day;
ALTER TABLE usage_daily ALTER COLUMN day TYPE date;

-- Since the beginning: what a counter shows must never go down, so no retention touches it.
CREATE TABLE usage_totals (LIKE usage_hourly);
ALTER TABLE usage_totals DROP COLUMN hour, DROP COLUMN provider_id;

-- The last day by the minute, for the health of providers.
CREATE TABLE usage_minutes (
    minute timestamptz NOT NULL,
    provider_id uuid NOT NULL,
    error_class text,
    calls integer NOT NULL
) WITH (fillfactor = 70);

DO $$
DECLARE
    rollup text;
    bound text;
BEGIN
    FOREACH rollup IN ARRAY ARRAY['usage_hourly', 'usage_daily', 'usage_totals', 'usage_minutes'] LOOP
        FOREACH bound IN ARRAY ARRAY[
            '5', '10', '20', '30', '50', '75', '100', '150', '200', '300', '500', '750', '1000', '1500', '2000',
            '3000', '5000', '7500', '10000', '15000', '30000', '60000', '120000', '300000', 'more'
        ] LOOP
            EXECUTE format('ALTER TABLE %I ADD COLUMN ms_%s integer NOT NULL', rollup, bound);
        END LOOP;
    END LOOP;
    FOREACH bound IN ARRAY ARRAY(
        SELECT attname FROM pg_attribute
        WHERE attrelid = 'usage_totals'::regclass AND attnum > 0 AND atttypid = 'integer'::regtype
    ) LOOP
        EXECUTE format('ALTER TABLE usage_totals ALTER COLUMN %I TYPE bigint', bound);
    END LOOP;
END $$;

-- By end user and day, and by nothing else: told apart by model and feature as well, there were as many rows as
-- calls (measured: 2.5 million of 3 million calls by 10,000 users).
CREATE TABLE usage_user_daily (
    day date NOT NULL,
    user_id text,
    attempts integer NOT NULL,
    calls integer NOT NULL,
    succeeded integer NOT NULL,
    failed integer NOT NULL,
    superseded integer NOT NULL,
    lost integer NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    characters bigint NOT NULL,
    seconds double precision NOT NULL,
    images integer NOT NULL,
    cost_usd numeric NOT NULL,
    unpriced_calls integer NOT NULL,
    latency_ms_sum bigint NOT NULL,
    latency_ms_max integer NOT NULL
) WITH (fillfactor = 90);

-- Who called most is asked of whole weeks first (beginning with a Monday): ranking 10,000 users by their days took
-- 61 ms of CPU, by weeks and the days around them 25.
CREATE TABLE usage_user_weekly (
    week date NOT NULL,
    user_id text,
    calls integer NOT NULL
) WITH (fillfactor = 90);

ALTER TABLE usage_hourly ADD CONSTRAINT uq_usage_hourly_hour
    UNIQUE NULLS NOT DISTINCT (hour, provider_id, provider, model, feature, outcome, error_class);
ALTER TABLE usage_daily ADD CONSTRAINT uq_usage_daily_day
    UNIQUE NULLS NOT DISTINCT (day, provider_id, provider, model, feature, outcome, error_class);
ALTER TABLE usage_totals ADD CONSTRAINT uq_usage_totals_provider
    UNIQUE NULLS NOT DISTINCT (provider, model, feature, outcome, error_class);
ALTER TABLE usage_minutes ADD CONSTRAINT uq_usage_minutes_provider_id
    UNIQUE NULLS NOT DISTINCT (provider_id, minute, error_class);
ALTER TABLE usage_user_daily ADD CONSTRAINT uq_usage_user_daily_user_id
    UNIQUE NULLS NOT DISTINCT (user_id, day);
CREATE INDEX ix_usage_user_daily_day ON usage_user_daily (day);
ALTER TABLE usage_user_weekly ADD CONSTRAINT uq_usage_user_weekly_week UNIQUE NULLS NOT DISTINCT (week, user_id);

-- --- Health, workers and alerts -----------------------------------------------------------------------

CREATE TABLE provider_health (
    provider_id uuid NOT NULL,
    last_success_at timestamptz,
    last_error_at timestamptz,
    last_error_class text,
    last_error_message text,
    CONSTRAINT pk_provider_health PRIMARY KEY (provider_id)
) WITH (fillfactor = 70);

-- Each worker process writes its own row with every beat and takes it away when it stops.
CREATE TABLE workers (
    id text NOT NULL,
    lanes text[] NOT NULL,
    threads integer NOT NULL,
    version text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    beat_seconds double precision NOT NULL,
    in_flight integer NOT NULL DEFAULT 0,
    is_stopping boolean NOT NULL DEFAULT false,
    CONSTRAINT pk_workers PRIMARY KEY (id)
) WITH (fillfactor = 50);
COMMENT ON COLUMN workers.id IS 'host:pid';

CREATE FUNCTION worker_is_lost(worker workers) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT worker.last_seen_at < now() - 3 * worker.beat_seconds * interval '1 second'
$$;

-- Breakers that are not closed, or were not before; each process has its own.
CREATE TABLE worker_breakers (
    worker_id text NOT NULL,
    provider_id uuid NOT NULL,
    state text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_worker_breakers PRIMARY KEY (provider_id, worker_id),
    CONSTRAINT ck_worker_breakers_state CHECK (state IN ('closed', 'open', 'half_open')),
    CONSTRAINT fk_worker_breakers_worker_id_workers FOREIGN KEY (worker_id) REFERENCES workers (id) ON DELETE CASCADE
);

CREATE TABLE alerts (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    kind text NOT NULL,
    noun text NOT NULL,
    noun_id text NOT NULL,
    message text NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    count bigint NOT NULL DEFAULT 1,
    acknowledged_at timestamptz,
    acknowledged_by uuid,
    CONSTRAINT pk_alerts PRIMARY KEY (id)
);
CREATE UNIQUE INDEX uq_alerts_open ON alerts (kind, noun, noun_id) WHERE acknowledged_at IS NULL;
CREATE INDEX ix_alerts_first_seen_at_id ON alerts (first_seen_at, id);
CREATE INDEX ix_alerts_kind_noun_noun_id ON alerts (kind, noun, noun_id, last_seen_at);

-- Counts into the open alert about the same thing. Acknowledged means known: what goes on adds to the acknowledged
-- one, and what comes back after an hour of silence is news. Returns the alert.
CREATE FUNCTION raise_alert(
    its_kind text, its_noun text, its_noun_id text, its_message text, times bigint DEFAULT 1
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE found_id uuid;
BEGIN
    UPDATE alerts SET last_seen_at = now(), count = count + times
    WHERE kind = its_kind AND noun = its_noun AND noun_id = its_noun_id
      AND acknowledged_at IS NOT NULL AND last_seen_at > now() - interval '1 hour'
    RETURNING id INTO found_id;
    IF NOT FOUND THEN
        INSERT INTO alerts AS open (kind, noun, noun_id, message, count)
        VALUES (its_kind, its_noun, its_noun_id, left(its_message, 2000), times)
        ON CONFLICT (kind, noun, noun_id) WHERE acknowledged_at IS NULL DO UPDATE
        SET last_seen_at = now(), count = open.count + times, message = EXCLUDED.message
        RETURNING open.id INTO found_id;
    END IF;
    RETURN found_id;
END $$;

-- Lanes whose due jobs wait although nobody serves them. Workers look, and so does whoever looks at the alerts:
-- where no worker runs at all nobody else could tell.
CREATE FUNCTION raise_unserved_lanes() RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH unserved AS (
        SELECT name, (
            SELECT run_at FROM jobs
            WHERE jobs.lane = lanes.name AND state = 'queued' AND NOT scheduled
              AND run_at < now() - interval '30 seconds'
            LIMIT 1
        ) AS since
        FROM lanes
        WHERE NOT is_paused
          AND NOT EXISTS (SELECT FROM workers WHERE lanes.name = ANY (workers.lanes) AND NOT worker_is_lost(workers))
    )
    SELECT count(raise_alert('lane_unserved', 'queues', name, format(
        'Jobs of the lane %s wait, and no worker serves it. Start one: orrery worker --lanes %s.', name, name)))
    FROM unserved WHERE since IS NOT NULL
$$;

-- Assigned models that a vendor takes out of service, and active ones only: others cannot fail a job.
CREATE FUNCTION raise_retiring_models() RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH retiring AS (
        SELECT models.id, models.model_id, retires_at, slug, string_agg(DISTINCT features.name, ', ') AS features,
            retires_at <= (now() AT TIME ZONE 'UTC')::date AS is_gone
        FROM ai_models AS models
        JOIN ai_providers ON ai_providers.id = provider_id
        JOIN assignment_targets ON assignment_targets.model_id = models.id
        JOIN feature_ai_assignments AS assignments ON assignments.id = assignment_id
        JOIN features ON features.id = feature_id
        WHERE retires_at <= (now() AT TIME ZONE 'UTC')::date + 30 AND models.is_active AND assignments.is_active
        GROUP BY models.id, slug
        ORDER BY models.id
    )
    SELECT count(raise_alert(
        CASE WHEN is_gone THEN 'model_retired' ELSE 'model_retires' END, 'models', id::text, format(
            'Model %s of %s %s %s and serves %s. Assign another.', model_id, slug,
            CASE WHEN is_gone THEN 'was retired on' ELSE 'will be retired on' END, retires_at, features)))
    FROM retiring
$$;

-- --- Views for reporting tools ------------------------------------------------------------------------

DO $$
BEGIN
    BEGIN
        CREATE ROLE orrery_reporting NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;
    END;
    IF NOT pg_has_role(current_user, 'orrery_reporting', 'MEMBER') OR NOT (
        SELECT rolsuper FROM pg_roles WHERE rolname = current_user
    ) THEN
        EXECUTE 'GRANT orrery_reporting TO CURRENT_USER';
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO orrery_reporting', current_schema());
END $$;

CREATE VIEW report_daily_cost_by_provider AS
SELECT day, provider, model, sum(calls)::bigint AS calls,
    sum(cost_usd) AS cost_usd, sum(unpriced_calls)::bigint AS unpriced_calls,
    sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens
FROM usage_daily GROUP BY day, provider, model;

CREATE VIEW report_daily_cost_by_feature AS
SELECT day, feature, sum(calls)::bigint AS calls,
    sum(cost_usd) AS cost_usd, sum(unpriced_calls)::bigint AS unpriced_calls,
    sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens
FROM usage_daily GROUP BY day, feature;

CREATE VIEW report_daily_cost_by_user AS
SELECT day, user_id, sum(calls)::bigint AS calls, sum(cost_usd) AS cost_usd,
    sum(unpriced_calls)::bigint AS unpriced_calls, sum(input_tokens)::bigint AS input_tokens,
    sum(output_tokens)::bigint AS output_tokens
FROM usage_user_daily GROUP BY day, user_id;

CREATE VIEW report_hourly_errors AS
SELECT hour, provider, model, feature, sum(calls)::bigint AS calls,
    coalesce(sum(calls) FILTER (WHERE outcome = 'failed'), 0)::bigint AS failed,
    coalesce(sum(calls) FILTER (WHERE outcome = 'failed'), 0)::float8 / nullif(sum(calls), 0) AS error_rate
FROM usage_hourly GROUP BY hour, provider, model, feature;

CREATE VIEW report_hourly_error_classes AS
SELECT hour, provider, model, feature, error_class, sum(calls)::bigint AS calls
FROM usage_hourly WHERE error_class IS NOT NULL GROUP BY hour, provider, model, feature, error_class;

-- `upper_ms` is the upper bound of the bucket in which the percentile lies; NULL: above five minutes.
CREATE VIEW report_hourly_latency AS
WITH buckets AS (
    SELECT hour, provider, model, bound, sum(counted.calls) AS calls
    FROM usage_hourly, LATERAL (VALUES
        (5, ms_5), (10, ms_10), (20, ms_20), (30, ms_30), (50, ms_50), (75, ms_75), (100, ms_100),
        (150, ms_150), (200, ms_200), (300, ms_300), (500, ms_500), (750, ms_750), (1000, ms_1000),
        (1500, ms_1500), (2000, ms_2000), (3000, ms_3000), (5000, ms_5000), (7500, ms_7500),
        (10000, ms_10000), (15000, ms_15000), (30000, ms_30000), (60000, ms_60000), (120000, ms_120000),
        (300000, ms_300000), (NULL, ms_more)
    ) AS counted (bound, calls)
    GROUP BY hour, provider, model, bound
), heaped AS (
    SELECT *, sum(calls) OVER (PARTITION BY hour, provider, model ORDER BY bound NULLS LAST) AS heap,
        sum(calls) OVER (PARTITION BY hour, provider, model) AS total
    FROM buckets
)
SELECT hour, provider, model, max(total)::bigint AS calls,
    min(bound) FILTER (WHERE heap >= 0.50 * total) AS p50_upper_ms,
    min(bound) FILTER (WHERE heap >= 0.95 * total) AS p95_upper_ms,
    min(bound) FILTER (WHERE heap >= 0.99 * total) AS p99_upper_ms
FROM heaped WHERE total > 0 GROUP BY hour, provider, model;

-- Jobs one by one, without what people sent and got.
CREATE VIEW report_jobs AS
SELECT id, feature, capability, lane, priority, state, user_id, plan, created_at, run_at, started_at, finished_at,
    extract(epoch FROM started_at - greatest(created_at, run_at))::float8 AS wait_seconds,
    extract(epoch FROM finished_at - started_at)::float8 AS run_seconds,
    extract(epoch FROM finished_at - created_at)::float8 AS total_seconds,
    run, retries, calls, error_class, provider, model, input_tokens, output_tokens, cached_tokens,
    reasoning_tokens, tokens_estimated, cost_usd, latency_ms, config_version, prompt_version
FROM job_history;

CREATE VIEW report_daily_job_durations AS
SELECT (finished_at AT TIME ZONE 'UTC')::date AS day, feature, lane, state, count(*) AS jobs,
    avg(run_seconds) AS run_seconds_avg, max(run_seconds) AS run_seconds_max,
    avg(wait_seconds) AS wait_seconds_avg, max(wait_seconds) AS wait_seconds_max,
    avg(total_seconds) AS total_seconds_avg,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY total_seconds) AS total_seconds_p50,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY total_seconds) AS total_seconds_p95
FROM report_jobs GROUP BY day, feature, lane, state;

-- Calls one by one, without messages and raw answers.
CREATE VIEW report_attempts AS
SELECT job_id, run, n, started_at, finished_at, feature, capability, lane, user_id, provider, model, served_model,
    outcome, called, breaker, error_class, status, latency_ms, input_tokens, output_tokens, cached_tokens,
    cache_write_tokens, reasoning_tokens, characters, seconds, images, tokens_estimated, cost_usd, config_version,
    prompt_version
FROM ai_usage_analytics;

GRANT SELECT ON report_daily_cost_by_provider, report_daily_cost_by_feature, report_daily_cost_by_user,
    report_hourly_errors, report_hourly_error_classes, report_hourly_latency, report_jobs,
    report_daily_job_durations, report_attempts TO orrery_reporting;

-- --- Rights of the services ---------------------------------------------------------------------------

REVOKE ALL ON FUNCTION usage_rebase() FROM PUBLIC;
REVOKE ALL ON FUNCTION raise_alert(text, text, text, text, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION raise_unserved_lanes() FROM PUBLIC;
REVOKE ALL ON FUNCTION raise_retiring_models() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION usage_rebase() TO orrery_worker;
GRANT EXECUTE ON FUNCTION raise_alert(text, text, text, text, bigint) TO orrery_worker;
GRANT EXECUTE ON FUNCTION raise_unserved_lanes() TO orrery_worker, orrery_api;
GRANT EXECUTE ON FUNCTION raise_retiring_models() TO orrery_worker;

-- The worker records, counts and reports; of the calls it changes nothing but adds.
GRANT SELECT, UPDATE (counted, counted_at) ON usage_rollup TO orrery_worker;
GRANT SELECT, INSERT, UPDATE ON usage_hourly, usage_daily, usage_totals, usage_user_daily, usage_user_weekly
TO orrery_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON usage_minutes, provider_health, workers, worker_breakers TO orrery_worker;

GRANT SELECT ON usage_rollup, usage_hourly, usage_daily, usage_totals, usage_minutes, usage_user_daily, usage_user_weekly,
    provider_health, workers, worker_breakers, alerts TO orrery_api;
GRANT UPDATE (acknowledged_at, acknowledged_by) ON alerts TO orrery_api;
