-- Jobs that are answered through a provider's batch API.

-- `use_batch`: it waits for a batch, not for a worker. While it is in one it runs, without a worker and without an end
-- to its lease; `batch_id` stays with it. Its priority is the last, so that claims of others do not read it.
ALTER TABLE jobs
    ADD COLUMN use_batch boolean NOT NULL DEFAULT false,
    ADD COLUMN batch_id uuid;
ALTER TABLE job_history ADD COLUMN batch_id uuid;
CREATE INDEX ix_jobs_feature_id_batch ON jobs (feature, id) WHERE use_batch;
CREATE INDEX ix_jobs_batch_id ON jobs (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX ix_job_history_batch_id ON job_history (batch_id) WHERE batch_id IS NOT NULL;
GRANT SELECT (use_batch, batch_id) ON jobs TO orrery_super_admin, orrery_admin, orrery_application, orrery_client;
GRANT SELECT (use_batch) ON jobs TO orrery_api;
GRANT SELECT (batch_id) ON job_history TO orrery_super_admin, orrery_admin, orrery_application, orrery_client;

-- `state`: ready (nothing was sent), sending (perhaps it was), submitted, over. `id` is the label by which a batch is
-- found again whose submission nobody saw the end of. `gone_live`: what was left of it went to workers.
CREATE TABLE provider_batches (
    id uuid NOT NULL,
    state text NOT NULL DEFAULT 'ready',
    feature text NOT NULL,
    provider_id uuid NOT NULL,
    provider text NOT NULL,
    model_row_id uuid NOT NULL,
    model text NOT NULL,
    jobs integer NOT NULL,
    config_version bigint NOT NULL,
    assignment_id uuid NOT NULL,
    prompt_version integer,
    key_version integer NOT NULL,
    provider_batch_id text,
    sending_token uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz,
    look_at timestamptz NOT NULL DEFAULT now(),
    live_at timestamptz NOT NULL,
    gone_live boolean NOT NULL DEFAULT false,
    cancel_asked boolean NOT NULL DEFAULT false,
    completed integer,
    failed integer,
    error text,
    finished_at timestamptz,
    CONSTRAINT pk_provider_batches PRIMARY KEY (id),
    CONSTRAINT ck_provider_batches_state_known CHECK (state in ('ready', 'sending', 'submitted', 'over'))
);
CREATE INDEX ix_provider_batches_look_at ON provider_batches (look_at) WHERE state <> 'over';

ALTER TABLE provider_batches ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON provider_batches TO orrery_super_admin, orrery_admin;
GRANT SELECT, INSERT, UPDATE, DELETE ON provider_batches TO orrery_worker;
CREATE POLICY orrery_super_admin_select ON provider_batches FOR SELECT TO orrery_super_admin USING (true);
CREATE POLICY orrery_admin_select ON provider_batches FOR SELECT TO orrery_admin USING (true);
CREATE POLICY orrery_worker ON provider_batches TO orrery_worker USING (true) WITH CHECK (true);

CREATE OR REPLACE FUNCTION cancel_jobs(wanted uuid[]) RETURNS SETOF uuid
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH locked AS (
        SELECT id FROM jobs WHERE id = ANY (wanted) AND caller_may_act_on(token_id, caller_admin_id)
        ORDER BY id FOR UPDATE
    ), ended AS (
        DELETE FROM jobs USING locked WHERE jobs.id = locked.id RETURNING jobs.*
    ), recorded AS (
        INSERT INTO job_history (
            id, feature, capability, lane, priority, state, input, user_id, plan, metadata, caller_admin_id,
            token_id, created_at, run_at, deadline_at, started_at, finished_at, run, retries, calls, error_class,
            error_message, config_version, cost_usd, worker, retry_of, crashes, group_id, parent_id, chain_id,
            follow_ups, callback_url, batch_id)
        SELECT
            id, feature, capability, lane, priority, 'cancelled', input, user_id, plan, metadata, caller_admin_id,
            token_id, created_at, run_at, deadline_at, started_at, now(), run, retries, calls, 'cancelled',
            'The job was cancelled.', config_version, cost_usd, worker, retry_of, crashes, group_id, parent_id, chain_id,
            follow_ups, callback_url, batch_id
        FROM ended
    )
    SELECT id FROM ended
$$;

-- A schedule's jobs of the batch lane, and what follows a job that was in a batch, wait for one, too.
CREATE OR REPLACE FUNCTION fire_schedule(
    its_id uuid, its_instant timestamptz, its_kind text, its_feature text, its_capability text, its_lane text,
    its_jobs jsonb, its_steps jsonb, its_version bigint, its_error text,
    OUT fired_group uuid, OUT moved boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    planned schedules;
    lines integer := coalesce(jsonb_array_length(its_jobs), 0);
    ends_at timestamptz;
BEGIN
    moved := false;
    IF current_setting('role') = 'orrery_super_admin' AND NOT caller_mfa() THEN
        RAISE insufficient_privilege USING MESSAGE = 'Firing a schedule takes a second factor.';
    END IF;
    SELECT * INTO STRICT planned FROM schedules WHERE id = its_id FOR UPDATE;
    IF its_error IS NULL AND NOT EXISTS (SELECT FROM config_state WHERE version = its_version) THEN
        moved := true;
        RETURN;
    END IF;
    IF its_error IS NULL AND lines > 0 THEN
        fired_group := new_id();
    END IF;
    INSERT INTO fires (schedule_id, instant, kind, group_id, jobs, error)
    VALUES (its_id, its_instant, its_kind, fired_group, CASE WHEN its_error IS NULL THEN lines ELSE 0 END, its_error)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        fired_group := NULL;
        RETURN;
    END IF;
    IF its_error IS NOT NULL THEN
        PERFORM raise_alert('schedule_failed', 'schedules', its_id::text,
            format('Schedule %s did not fire: %s', planned.name, its_error));
    END IF;
    IF fired_group IS NULL THEN
        RETURN;
    END IF;
    ends_at := greatest(its_instant, now()) + planned.deadline_minutes * interval '1 minute';
    INSERT INTO job_groups (id, schedule_id, name, instant, expected, total, callback_url, deadline_at)
    VALUES (fired_group, its_id, planned.name, its_instant, lines * (1 + coalesce(jsonb_array_length(its_steps), 0)), lines,
        planned.callback_url, ends_at);
    INSERT INTO jobs (id, feature, capability, lane, priority, input, plan, metadata, deadline_at, group_id, chain_id,
        follow_ups, use_batch)
    SELECT made.id, its_feature, its_capability, its_lane,
        CASE WHEN planned.use_batch_api AND its_lane = 'batch' THEN 100 ELSE planned.priority END, made.input, planned.plan,
        jsonb_build_object('schedule', planned.name, 'instant', its_instant),
        ends_at, fired_group, CASE WHEN its_steps IS NOT NULL THEN made.id END, its_steps,
        planned.use_batch_api AND its_lane = 'batch'
    FROM jsonb_to_recordset(its_jobs) AS made (id uuid, input jsonb);
END $$;

CREATE OR REPLACE FUNCTION follow_up() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    counted record;
    is_last boolean;
BEGIN
    IF NOT EXISTS (
        SELECT FROM ended WHERE follow_ups IS NOT NULL OR group_id IS NOT NULL OR callback_url IS NOT NULL
    ) THEN
        RETURN NULL;
    END IF;
    INSERT INTO jobs (id, feature, capability, lane, priority, input, user_id, plan, metadata, caller_admin_id, token_id,
        deadline_at, group_id, parent_id, chain_id, follow_ups, callback_url, use_batch)
    SELECT new_id(), step ->> 'feature_name', coalesce(features.capability, 'text'), coalesce(features.lane, ended.lane),
        CASE WHEN batch_id IS NOT NULL AND features.lane = 'batch' THEN 100 WHEN batch_id IS NOT NULL THEN 0 ELSE priority END,
        mapped_input(step -> 'input', jsonb_build_object('result', coalesce(result, '{}'), 'input', input,
            'metadata', metadata, 'state', state)),
        user_id, plan, metadata, caller_admin_id, token_id, deadline_at, group_id, ended.id, chain_id,
        nullif(follow_ups - 0, '[]'), callback_url, batch_id IS NOT NULL AND coalesce(features.lane, '') = 'batch'
    FROM ended CROSS JOIN LATERAL (SELECT follow_ups -> 0 AS step) AS next
    LEFT JOIN features ON features.name = step ->> 'feature_name'
    WHERE follow_ups IS NOT NULL
      AND (state = 'succeeded' OR state = 'failed' AND step ->> 'on_failure' = 'continue')
    ORDER BY ended.id;

    FOR counted IN
        SELECT group_id AS id, count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
            count(*) FILTER (WHERE state = 'failed') AS failed,
            count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
            count(*) FILTER (WHERE goes_on) AS more,
            coalesce(sum(jsonb_array_length(follow_ups)) FILTER (WHERE NOT goes_on), 0) AS skipped,
            coalesce(sum(cost_usd), 0) AS cost_usd, count(*) FILTER (WHERE cost_usd IS NULL) AS unpriced
        FROM ended CROSS JOIN LATERAL (
            SELECT follow_ups IS NOT NULL
                AND (state = 'succeeded' OR state = 'failed' AND follow_ups -> 0 ->> 'on_failure' = 'continue') AS goes_on
        ) AS next
        WHERE group_id IS NOT NULL GROUP BY 1 ORDER BY 1
    LOOP
        UPDATE job_groups AS kept SET
            total = total + counted.more, succeeded = kept.succeeded + counted.succeeded,
            failed = kept.failed + counted.failed, cancelled = kept.cancelled + counted.cancelled,
            skipped = kept.skipped + counted.skipped, cost_usd = kept.cost_usd + counted.cost_usd,
            unpriced_jobs = unpriced_jobs + counted.unpriced
        WHERE kept.id = counted.id;
        UPDATE job_groups AS kept SET finished_at = now()
        WHERE kept.id = counted.id AND finished_at IS NULL AND kept.succeeded + kept.failed + kept.cancelled >= total;
        IF FOUND THEN
            INSERT INTO notices (url, group_id, event, content)
            SELECT kept.callback_url, kept.id, 'group.finished', jsonb_build_object(
                'message', format('%s of %s: %s of %s jobs succeeded.', kept.name,
                    to_char(instant AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"'), kept.succeeded, total),
                'group', jsonb_build_object('id', kept.id, 'schedule_id', schedule_id, 'name', kept.name, 'instant', instant,
                    'total', total, 'succeeded', kept.succeeded, 'failed', kept.failed, 'cancelled', kept.cancelled,
                    'skipped', kept.skipped, 'cost_usd', kept.cost_usd::text, 'created_at', created_at,
                    'finished_at', finished_at))
            FROM job_groups AS kept WHERE kept.id = counted.id AND kept.callback_url IS NOT NULL;
        END IF;
    END LOOP;

    INSERT INTO notices (url, job_id, event, content)
    SELECT callback_url, ended.id, 'job.finished', jsonb_build_object(
        'message', format('Job %s of %s %s.', ended.id, feature, CASE state WHEN 'cancelled' THEN 'was cancelled' ELSE state END),
        'job', jsonb_build_object('id', ended.id, 'feature', feature, 'state', state, 'user_id', user_id, 'plan', plan,
            'metadata', metadata, 'group_id', group_id, 'parent_id', parent_id, 'retry_of', retry_of,
            'created_at', created_at, 'finished_at', finished_at, 'provider', provider, 'model', model,
            'cost_usd', cost_usd::text,
            'error', CASE WHEN error_class IS NOT NULL
                THEN jsonb_build_object('class', error_class, 'message', error_message) END,
            'result', CASE WHEN length(result::text) <= 100000 THEN result END,
            'result_omitted', result IS NOT NULL AND length(result::text) > 100000))
    FROM ended WHERE callback_url IS NOT NULL ORDER BY ended.id;
    RETURN NULL;
END $$;

DO $$
DECLARE trusted record;
BEGIN
    FOR trusted IN
        SELECT oid::regprocedure AS signature FROM pg_proc
        WHERE pronamespace = current_schema()::regnamespace AND prosecdef
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', trusted.signature, current_schema());
    END LOOP;
END $$;
