-- Schedules, groups of jobs, chains of jobs, and callbacks.

-- --- What jobs belong to ------------------------------------------------------------------------------

-- `follow_ups` are the steps that come after the job, compiled (workers/chains.py); `chain_id` is the first job's.
-- `use_batch`: it waits for a batch, not for a worker. While it is in one it runs, without a worker and without an end
-- to its lease; `batch_id` stays with it. Its priority is the last, so that claims of others do not read it.
ALTER TABLE jobs
    ADD COLUMN group_id uuid,
    ADD COLUMN parent_id uuid,
    ADD COLUMN chain_id uuid,
    ADD COLUMN follow_ups jsonb,
    ADD COLUMN callback_url text,
    ADD COLUMN use_batch boolean NOT NULL DEFAULT false,
    ADD COLUMN batch_id uuid,
    ADD CONSTRAINT ck_jobs_chain CHECK (chain_id IS NULL OR chain_id = id OR parent_id IS NOT NULL);
ALTER TABLE job_history
    ADD COLUMN group_id uuid,
    ADD COLUMN parent_id uuid,
    ADD COLUMN chain_id uuid,
    ADD COLUMN follow_ups jsonb,
    ADD COLUMN callback_url text,
    ADD COLUMN batch_id uuid;

-- A job that belongs to nothing, as most, is in none of them.
CREATE INDEX ix_jobs_group_id_id ON jobs (group_id, id) WHERE group_id IS NOT NULL;
CREATE INDEX ix_jobs_chain_id_id ON jobs (chain_id, id) WHERE chain_id IS NOT NULL;
CREATE INDEX ix_job_history_group_id_id ON job_history (group_id, id) WHERE group_id IS NOT NULL;
CREATE INDEX ix_job_history_chain_id_id ON job_history (chain_id, id) WHERE chain_id IS NOT NULL;

GRANT SELECT (group_id, parent_id, chain_id, follow_ups, callback_url) ON jobs, job_history
    TO orrery_super_admin, orrery_admin, orrery_application, orrery_client;
GRANT INSERT (chain_id, follow_ups, callback_url) ON jobs TO orrery_super_admin, orrery_admin, orrery_application;

-- --- Schedules ----------------------------------------------------------------------------------------

-- The clock of schedules. Tests have another one.
CREATE FUNCTION schedule_now() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT now() $$;

CREATE TABLE schedules (
    id uuid NOT NULL,
    name text NOT NULL,
    cron text NOT NULL,
    timezone text NOT NULL DEFAULT 'UTC',
    feature_name text NOT NULL,
    inputs_matrix jsonb NOT NULL DEFAULT '{}',
    "then" jsonb NOT NULL DEFAULT '[]',
    priority smallint NOT NULL DEFAULT 0,
    plan text,
    catch_up text NOT NULL DEFAULT 'latest',
    use_batch_api boolean NOT NULL DEFAULT false,
    deadline_minutes integer,
    callback_url text,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    updated_by uuid,
    CONSTRAINT pk_schedules PRIMARY KEY (id),
    CONSTRAINT uq_schedules_name UNIQUE (name),
    CONSTRAINT fk_schedules_feature_name_features FOREIGN KEY (feature_name) REFERENCES features (name),
    CONSTRAINT ck_schedules_catch_up_known CHECK (catch_up in ('latest', 'all', 'none')),
    CONSTRAINT ck_schedules_deadline_positive CHECK (deadline_minutes > 0)
);
CREATE INDEX ix_schedules_feature_name ON schedules (feature_name);
SELECT audit_table('schedules', 'schedules');

-- Instants up to `cursor_at` are dealt with. `next_at` is the first one after it; NULL: a scheduler finds it out.
CREATE TABLE schedule_state (
    schedule_id uuid NOT NULL,
    cursor_at timestamptz NOT NULL,
    next_at timestamptz,
    retry_at timestamptz,
    CONSTRAINT pk_schedule_state PRIMARY KEY (schedule_id),
    CONSTRAINT fk_schedule_state_schedule_id_schedules FOREIGN KEY (schedule_id) REFERENCES schedules (id) ON DELETE CASCADE
);

-- An edit counts from now on: no instant of before it fires any more, neither the old plan's nor the new one's.
CREATE FUNCTION schedule_saved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND (NEW.cron, NEW.timezone, NEW.is_active) IS NOT DISTINCT FROM (OLD.cron, OLD.timezone, OLD.is_active)
    THEN
        UPDATE schedule_state SET retry_at = NULL WHERE schedule_id = NEW.id;
        RETURN NULL;
    END IF;
    INSERT INTO schedule_state (schedule_id, cursor_at) VALUES (NEW.id, schedule_now())
    ON CONFLICT (schedule_id) DO UPDATE SET cursor_at = EXCLUDED.cursor_at, next_at = NULL, retry_at = NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER schedule_saved AFTER INSERT OR UPDATE ON schedules FOR EACH ROW EXECUTE FUNCTION schedule_saved();

-- --- Groups -------------------------------------------------------------------------------------------

-- The jobs of a firing. `total` counts those that were made so far, `expected` all that may come, `skipped` steps of
-- chains that never will. Whoever ends a member locks the row, so exactly one sees itself last.
CREATE TABLE job_groups (
    id uuid NOT NULL,
    schedule_id uuid,
    name text NOT NULL,
    instant timestamptz NOT NULL,
    expected integer NOT NULL,
    total integer NOT NULL,
    succeeded integer NOT NULL DEFAULT 0,
    failed integer NOT NULL DEFAULT 0,
    cancelled integer NOT NULL DEFAULT 0,
    skipped integer NOT NULL DEFAULT 0,
    cost_usd numeric NOT NULL DEFAULT 0,
    unpriced_jobs integer NOT NULL DEFAULT 0,
    callback_url text,
    created_at timestamptz NOT NULL DEFAULT now(),
    deadline_at timestamptz,
    finished_at timestamptz,
    CONSTRAINT pk_job_groups PRIMARY KEY (id)
) WITH (fillfactor = 50);
CREATE INDEX ix_job_groups_schedule_id_id ON job_groups (schedule_id, id);

-- What a schedule has fired, each instant once: the key is what makes it so.
CREATE TABLE fires (
    schedule_id uuid NOT NULL,
    instant timestamptz NOT NULL,
    kind text NOT NULL,
    fired_at timestamptz NOT NULL DEFAULT now(),
    group_id uuid,
    jobs integer NOT NULL DEFAULT 0,
    error text,
    CONSTRAINT pk_fires PRIMARY KEY (schedule_id, instant),
    CONSTRAINT fk_fires_schedule_id_schedules FOREIGN KEY (schedule_id) REFERENCES schedules (id) ON DELETE CASCADE,
    CONSTRAINT ck_fires_kind_known CHECK (kind in ('scheduled', 'manual'))
);

-- A UUIDv7.
CREATE FUNCTION new_id() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT encode(set_bit(set_bit(overlay(
        uuid_send(gen_random_uuid())
        PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6
    ), 52, 1), 53, 1), 'hex')::uuid
$$;

-- The schedule that has waited longest, locked; schedulers and editors pass each other by.
CREATE FUNCTION due_schedule() RETURNS TABLE (
    id uuid, name text, cron text, timezone text, feature_name text, inputs_matrix jsonb, "then" jsonb, catch_up text,
    cursor_at timestamptz, next_at timestamptz, at timestamptz)
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT planned.id, name, cron, timezone, feature_name, inputs_matrix, "then", catch_up, cursor_at, next_at,
        schedule_now()
    FROM schedules AS planned JOIN schedule_state AS state ON schedule_id = planned.id
    WHERE is_active AND (next_at IS NULL OR next_at <= schedule_now())
      AND (retry_at IS NULL OR retry_at <= schedule_now())
    ORDER BY next_at NULLS FIRST, planned.id LIMIT 1 FOR UPDATE OF planned, state SKIP LOCKED
$$;

-- Notes how far a schedule is. The caller holds its lock.
CREATE FUNCTION advance_schedule(its_id uuid, its_cursor timestamptz, its_next timestamptz, its_retry timestamptz)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    UPDATE schedule_state SET cursor_at = its_cursor, next_at = its_next, retry_at = its_retry
    WHERE schedule_id = its_id
$$;

-- Fires an instant: its jobs and the note that it was fired, or nothing. Returns the group; NULL where the instant has
-- fired before, or the configuration is not the one any more that the jobs were checked against (`moved`). With an
-- error there are no jobs, and the note says why.
CREATE FUNCTION fire_schedule(
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

-- --- Chains -------------------------------------------------------------------------------------------

-- A follow-up's input: each member a value, a path into what the parent left, or text made of both.
CREATE FUNCTION mapped_input(map jsonb, source jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_object_agg(member.key, made.value) FILTER (WHERE made.value IS NOT NULL), '{}')
    FROM jsonb_each(map) AS member CROSS JOIN LATERAL (
        SELECT CASE
            WHEN member.value ? 'path'
                THEN source #> ARRAY(SELECT jsonb_array_elements_text(member.value -> 'path'))
            WHEN member.value ? 'parts' THEN to_jsonb((
                SELECT string_agg(coalesce(CASE WHEN part ? 'path'
                    THEN source #>> ARRAY(SELECT jsonb_array_elements_text(part -> 'path'))
                    ELSE part ->> 'value' END, ''), '' ORDER BY place)
                FROM jsonb_array_elements(member.value -> 'parts') WITH ORDINALITY AS parts (part, place)))
            ELSE member.value -> 'value'
        END AS value
    ) AS made
$$;

-- What the end of jobs brings about, in the transaction that ends them, whoever does: the next step of their chains, the
-- count of their groups, and callbacks. Groups are locked in the order of their ids, after all rows of jobs.
CREATE FUNCTION follow_up() RETURNS trigger
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
CREATE TRIGGER follow_up AFTER INSERT ON job_history REFERENCING NEW TABLE AS ended
    FOR EACH STATEMENT EXECUTE FUNCTION follow_up();

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

-- --- Lists --------------------------------------------------------------------------------------------

-- What did not succeed, of one provider: 340 ms among a million jobs, for each row was fetched to ask for its provider.
DROP INDEX ix_job_history_state_id, ix_job_history_error_class_id;
CREATE INDEX ix_job_history_state_id ON job_history (state, id, feature, token_id, provider) WHERE state <> 'succeeded';
CREATE INDEX ix_job_history_error_class_id ON job_history (error_class, id, state, feature, token_id, provider)
    WHERE error_class IS NOT NULL;

-- --- Callbacks ----------------------------------------------------------------------------------------

-- A notice goes to an integration, or to the address that a job or schedule names.
ALTER TABLE notices
    ALTER COLUMN integration_id DROP NOT NULL,
    ADD COLUMN url text,
    ADD COLUMN job_id uuid,
    ADD COLUMN group_id uuid,
    ADD CONSTRAINT ck_notices_addressed CHECK (num_nonnulls(integration_id, url) = 1);
CREATE INDEX ix_notices_job_id ON notices (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX ix_notices_group_id ON notices (group_id) WHERE group_id IS NOT NULL;

-- Applications see how the callbacks of their own jobs went.
GRANT SELECT (id, event, made_at, due_at, tries, sent_at, failed_at, error, url, job_id, group_id) ON notices
    TO orrery_application;
CREATE POLICY orrery_application_select ON notices FOR SELECT TO orrery_application
    USING (job_id IS NOT NULL AND caller_sent(job_id));
GRANT SELECT ON notices TO orrery_client;
CREATE POLICY orrery_client ON notices FOR SELECT TO orrery_client USING (true);

-- --- Rights -------------------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION schedule_saved(), due_schedule(), advance_schedule(uuid, timestamptz, timestamptz, timestamptz),
    fire_schedule(uuid, timestamptz, text, text, text, text, jsonb, jsonb, bigint, text), follow_up() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION due_schedule(), advance_schedule(uuid, timestamptz, timestamptz, timestamptz) TO orrery_worker;
GRANT EXECUTE ON FUNCTION fire_schedule(uuid, timestamptz, text, text, text, text, jsonb, jsonb, bigint, text)
    TO orrery_worker, orrery_super_admin;

ALTER TABLE schedules ENABLE ROW LEVEL SECURITY;
ALTER TABLE schedule_state ENABLE ROW LEVEL SECURITY;
ALTER TABLE job_groups ENABLE ROW LEVEL SECURITY;
ALTER TABLE fires ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON schedules, schedule_state, job_groups, fires TO orrery_super_admin, orrery_admin;
GRANT INSERT, UPDATE, DELETE ON schedules TO orrery_super_admin;
GRANT SELECT ON schedules, job_groups TO orrery_worker;
DO $$
DECLARE
    seen text;
    caller text;
BEGIN
    FOREACH seen IN ARRAY ARRAY['schedules', 'schedule_state', 'job_groups', 'fires'] LOOP
        FOREACH caller IN ARRAY ARRAY['orrery_super_admin', 'orrery_admin'] LOOP
            EXECUTE format('CREATE POLICY %I ON %I FOR SELECT TO %I USING (true)', caller || '_select', seen, caller);
        END LOOP;
    END LOOP;
END $$;
CREATE POLICY orrery_super_admin_insert ON schedules FOR INSERT TO orrery_super_admin WITH CHECK ((SELECT caller_mfa()));
CREATE POLICY orrery_super_admin_update ON schedules FOR UPDATE TO orrery_super_admin
    USING ((SELECT caller_mfa())) WITH CHECK ((SELECT caller_mfa()));
CREATE POLICY orrery_super_admin_delete ON schedules FOR DELETE TO orrery_super_admin USING ((SELECT caller_mfa()));
CREATE POLICY orrery_worker ON schedules FOR SELECT TO orrery_worker USING (true);
CREATE POLICY orrery_worker ON job_groups FOR SELECT TO orrery_worker USING (true);

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
