-- Lists of finished jobs by user, state and feature; all calls by the hour; whose jobs a caller may end or run again.

-- --- Lists --------------------------------------------------------------------------------------------

-- With a million jobs of thirty days a list of which little or nothing matched took 0.2 to 0.5 s, and takes 1 to 8 ms.
-- Each of the first two costs 3 to 5 us for a job that ends, and 50 MB for a million; a job without a user costs
-- nothing. The others hold what did not succeed alone, so they can hold what else such lists ask for. An index
-- cannot hold texts of any length, and jobs must end whatever their user is called; a condition on what it holds,
-- and not a shorter text in it: row level security lets no function of a row be asked before the caller's own rows
-- are.
CREATE INDEX ix_job_history_feature_id ON job_history (feature, id);
CREATE INDEX ix_job_history_user_id_id ON job_history (user_id, id) WHERE octet_length(user_id) <= 800;
CREATE INDEX ix_job_history_state_id ON job_history (state, id, feature, token_id) WHERE state <> 'succeeded';
CREATE INDEX ix_job_history_error_class_id ON job_history (error_class, id, state, feature, token_id)
    WHERE error_class IS NOT NULL;

-- --- Statistics ---------------------------------------------------------------------------------------

-- All calls by the hour, told apart by nothing: a month's hours are 720 rows, and were summed up out of 30,000 and
-- more (46 ms of CPU, now 3).
CREATE TABLE usage_overall_hourly (LIKE usage_hourly) WITH (fillfactor = 70);
ALTER TABLE usage_overall_hourly
    DROP COLUMN provider_id, DROP COLUMN provider, DROP COLUMN model, DROP COLUMN feature, DROP COLUMN outcome,
    DROP COLUMN error_class,
    ADD COLUMN succeeded integer NOT NULL,
    ADD COLUMN failed integer NOT NULL,
    ADD COLUMN superseded integer NOT NULL,
    ADD COLUMN lost integer NOT NULL,
    ADD CONSTRAINT pk_usage_overall_hourly PRIMARY KEY (hour);

LOCK TABLE usage_rollup IN SHARE ROW EXCLUSIVE MODE;  -- nobody counts meanwhile
DO $$
DECLARE
    sums record;
BEGIN
    SELECT string_agg(quote_ident(attname), ', ') AS names, string_agg(
        CASE
            WHEN attname IN ('succeeded', 'failed', 'superseded', 'lost')
                THEN format('coalesce(sum(calls) FILTER (WHERE outcome = %L), 0)', attname)
            WHEN attname LIKE '%\_max' THEN format('max(%I)', attname)
            ELSE format('sum(%I)', attname)
        END, ', ') AS terms
    INTO sums
    FROM pg_attribute
    WHERE attrelid = 'usage_overall_hourly'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'hour';
    EXECUTE format('INSERT INTO usage_overall_hourly (hour, %s) SELECT hour, %s FROM usage_hourly GROUP BY hour',
        sums.names, sums.terms);
END $$;

ALTER TABLE usage_overall_hourly ENABLE ROW LEVEL SECURITY;
CREATE POLICY orrery_worker ON usage_overall_hourly TO orrery_worker USING (true) WITH CHECK (true);
CREATE POLICY orrery_readers ON usage_overall_hourly FOR SELECT
    TO orrery_api, orrery_super_admin, orrery_admin USING (true);
GRANT SELECT, INSERT, UPDATE ON usage_overall_hourly TO orrery_worker;
GRANT SELECT ON usage_overall_hourly TO orrery_api, orrery_super_admin, orrery_admin;

-- --- Rights -------------------------------------------------------------------------------------------

-- Whether the caller may end a job, or run it again: an application what it enqueued, an admin what was enqueued
-- in the own name, a super admin with a second factor any. Services may, and are kept from it by grants. The
-- setting `role` tells who called; in a function that runs as the owner current_user would be the owner.
CREATE FUNCTION caller_may_act_on(token_id uuid, caller_admin_id uuid) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE current_setting('role')
        WHEN 'orrery_application' THEN coalesce(token_id = caller_token(), false)
        WHEN 'orrery_admin' THEN coalesce(caller_admin_id = caller_admin(), false)
        WHEN 'orrery_super_admin' THEN caller_mfa()
        ELSE true
    END
$$;

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
            error_message, config_version, cost_usd, worker, retry_of, crashes)
        SELECT
            id, feature, capability, lane, priority, 'cancelled', input, user_id, plan, metadata, caller_admin_id,
            token_id, created_at, run_at, deadline_at, started_at, now(), run, retries, calls, 'cancelled',
            'The job was cancelled.', config_version, cost_usd, worker, retry_of, crashes
        FROM ended
    )
    SELECT id FROM ended
$$;
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION cancel_jobs(uuid[]) SET search_path = %I, pg_temp', current_schema());
END $$;
DROP FUNCTION caller_may_end(uuid);

-- A retry names the job that it repeats: its caller must be one who may. With the caller's own rights, and in
-- plpgsql, which plans once a session and not once a row.
CREATE FUNCTION caller_may_repeat(job_id uuid) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM job_history WHERE id = job_id AND caller_may_act_on(token_id, caller_admin_id));
END $$;
DO $$
DECLARE
    mine CONSTANT text := 'token_id IS NOT DISTINCT FROM (SELECT caller_token()) '
        'AND caller_admin_id IS NOT DISTINCT FROM (SELECT caller_admin()) '
        'AND (retry_of IS NULL OR caller_may_repeat(retry_of))';
BEGIN
    EXECUTE format('ALTER POLICY orrery_admin_insert ON jobs WITH CHECK (%s)', mine);
    EXECUTE format('ALTER POLICY orrery_application_insert ON jobs WITH CHECK (%s)',
        'token_id = (SELECT caller_token()) AND ' || mine);
END $$;

-- Second factors are deleted by the API itself, or at the machine.
DROP POLICY orrery_super_admin_delete ON admin_second_factors;
REVOKE DELETE ON admin_second_factors FROM orrery_super_admin;
