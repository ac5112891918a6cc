-- How long jobs and calls are kept: policies, partitions that go, and contents that are erased.

-- --- Policies -----------------------------------------------------------------------------------------

-- Whole days (UTC) go that ended more than `keep_days` days ago; NULL: none does. Calls are kept for a month at
-- least: monthly limits of personal keys are summed up from them.
CREATE TABLE retention (
    table_name text NOT NULL,
    keep_days integer,
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by uuid,
    CONSTRAINT pk_retention PRIMARY KEY (table_name),
    CONSTRAINT ck_retention_table_name_known CHECK (table_name in ('job_history', 'ai_usage_analytics')),
    CONSTRAINT ck_retention_keep_days_range CHECK (
        keep_days between CASE table_name WHEN 'ai_usage_analytics' THEN 31 ELSE 1 END and 36500)
);
INSERT INTO retention (table_name) VALUES ('job_history'), ('ai_usage_analytics');
SELECT audit_table('retention', 'retention', 'table_name');

ALTER TABLE features
    ADD COLUMN keep_days integer,
    ADD COLUMN store_input boolean NOT NULL DEFAULT true,
    ADD COLUMN store_output boolean NOT NULL DEFAULT true,
    ADD CONSTRAINT ck_features_keep_days_range CHECK (keep_days between 1 and 36500);
GRANT SELECT (keep_days, store_input, store_output) ON features TO orrery_super_admin, orrery_admin, orrery_client;

ALTER TABLE job_history
    ADD COLUMN input_erased_at timestamptz,
    ADD COLUMN output_erased_at timestamptz;
GRANT SELECT (input_erased_at, output_erased_at) ON job_history
    TO orrery_super_admin, orrery_admin, orrery_application, orrery_client;

-- --- Partitions ---------------------------------------------------------------------------------------

-- Partitions whose whole day is older than their table's policy, the oldest first.
CREATE FUNCTION expired_partitions() RETURNS TABLE (table_name text, partition regclass, since timestamptz, until timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT kept.table_name, child.oid::regclass, bounds.since, bounds.until
    FROM retention AS kept
    JOIN pg_inherits ON inhparent = to_regclass(kept.table_name)
    JOIN pg_class AS child ON child.oid = inhrelid
    CROSS JOIN LATERAL (SELECT pg_get_expr(relpartbound, child.oid) AS bound) AS described
    CROSS JOIN LATERAL (
        SELECT substring(bound FROM 'FROM \(''([^'']+)''\)')::timestamptz AS since,
            substring(bound FROM 'TO \(''([^'']+)''\)')::timestamptz AS until
    ) AS bounds
    WHERE bounds.until <= now() - kept.keep_days * interval '24 hours'
    ORDER BY bounds.until, kept.table_name
$$;

-- Whether a partition holds calls that no rollup has counted. In a cluster that the counts do not come from nobody
-- can tell.
CREATE FUNCTION has_uncounted(partition regclass) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    state usage_rollup;
    found_one boolean;
BEGIN
    SELECT * INTO STRICT state FROM usage_rollup;
    IF state.cluster <> (SELECT system_identifier FROM pg_control_system()) THEN
        RETURN true;
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE xid >= pg_snapshot_xmin($1) AND NOT pg_visible_in_snapshot(xid, $1))',
        partition) INTO found_one USING state.counted;
    RETURN found_one;
END $$;

-- Drops a partition that is due. False where it is not, where calls of it are not counted yet, or where the lock was not
-- to be had at once: everybody who comes meanwhile waits behind us. The table is locked before its partition, as by
-- whoever writes; and looked at again once nobody can write. Files go after the lock does.
CREATE FUNCTION drop_partition(wanted regclass) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout TO '200ms' AS $$
DECLARE
    parent text := (SELECT table_name FROM expired_partitions() WHERE partition = wanted);
    counts CONSTANT boolean := parent = 'ai_usage_analytics';
BEGIN
    IF parent IS NULL OR counts AND has_uncounted(wanted) THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', parent);
    IF counts AND has_uncounted(wanted) THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE %s', wanted);
    RETURN true;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RETURN false;
END $$;

-- --- Contents -----------------------------------------------------------------------------------------

-- A feature that stores no inputs: its jobs' records lose them in the transaction that writes them, so nobody ever reads
-- one. After `follow_up` (triggers go by their names), for what follows takes its input from them.
CREATE FUNCTION forget_inputs() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM features WHERE NOT store_input) THEN
        UPDATE job_history AS kept
        SET input = '{}', metadata = '{}', follow_ups = NULL, input_erased_at = now()
        FROM ended JOIN features ON features.name = ended.feature AND NOT store_input
        WHERE kept.id = ended.id AND kept.finished_at = ended.finished_at;
    END IF;
    RETURN NULL;
END $$;
CREATE INDEX ix_features_name_unstored ON features (name) WHERE NOT store_input;
CREATE TRIGGER forget_inputs AFTER INSERT ON job_history REFERENCING NEW TABLE AS ended
    FOR EACH STATEMENT EXECUTE FUNCTION forget_inputs();

-- Erases what finished jobs (which ended between `since` and `until`) were given, or what they made, error messages
-- included, or both; from news about them, too. Returns of how many. Artifacts are the caller's to delete, before.
CREATE FUNCTION erase_jobs(wanted uuid[], since timestamptz, until timestamptz, inputs boolean, outputs boolean)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    erased integer;
    oldest timestamptz;
BEGIN
    IF current_setting('role') = 'orrery_super_admin' AND NOT caller_mfa() THEN
        RAISE insufficient_privilege USING MESSAGE = 'Erasing jobs takes a second factor.';
    END IF;
    WITH locked AS (
        SELECT id, finished_at FROM job_history
        WHERE id = ANY (wanted) AND finished_at BETWEEN since AND until
          AND (inputs AND input_erased_at IS NULL OR outputs AND output_erased_at IS NULL)
        ORDER BY id FOR UPDATE
    ), changed AS (
        UPDATE job_history AS kept SET
            input = CASE WHEN inputs THEN '{}' ELSE input END,
            metadata = CASE WHEN inputs THEN '{}' ELSE metadata END,
            follow_ups = CASE WHEN NOT inputs THEN follow_ups END,
            input_erased_at = CASE WHEN inputs THEN coalesce(input_erased_at, now()) ELSE input_erased_at END,
            result = CASE WHEN NOT outputs THEN result END,
            artifact_key = CASE WHEN NOT outputs THEN artifact_key END,
            error_message = CASE WHEN NOT outputs THEN error_message END,
            output_erased_at = CASE WHEN outputs THEN coalesce(output_erased_at, now()) ELSE output_erased_at END
        FROM locked WHERE kept.id = locked.id AND kept.finished_at = locked.finished_at
        RETURNING kept.created_at
    )
    SELECT count(*), min(created_at) INTO erased, oldest FROM changed;
    IF outputs THEN  -- calls have their times from workers, whose clocks may be behind
        UPDATE ai_usage_analytics SET error_message = NULL
        WHERE job_id = ANY (wanted) AND finished_at >= oldest - interval '1 day' AND error_message IS NOT NULL;
    END IF;
    UPDATE notices SET content = jsonb_set(content, '{job}', content -> 'job' || '{"erased": true}'
        || CASE WHEN inputs THEN '{"metadata": {}}' ELSE '{}' END::jsonb
        || CASE WHEN outputs THEN '{"result": null}' ELSE '{}' END::jsonb
        || CASE WHEN outputs AND content #> '{job,error,class}' IS NOT NULL
            THEN jsonb_build_object('error', jsonb_build_object('class', content #> '{job,error,class}', 'message', NULL))
            ELSE '{}' END)
    WHERE job_id = ANY (wanted) AND content -> 'job' IS NOT NULL;
    RETURN erased;
END $$;

-- --- Rights -------------------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION expired_partitions(), has_uncounted(regclass), drop_partition(regclass), forget_inputs(),
    erase_jobs(uuid[], timestamptz, timestamptz, boolean, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION expired_partitions(), drop_partition(regclass) TO orrery_worker;
GRANT EXECUTE ON FUNCTION erase_jobs(uuid[], timestamptz, timestamptz, boolean, boolean) TO orrery_worker, orrery_super_admin;

ALTER TABLE retention ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON retention TO orrery_super_admin, orrery_admin;
GRANT UPDATE (keep_days, updated_at, updated_by) ON retention TO orrery_super_admin;
CREATE POLICY orrery_super_admin_select ON retention FOR SELECT TO orrery_super_admin USING (true);
CREATE POLICY orrery_admin_select ON retention FOR SELECT TO orrery_admin USING (true);
CREATE POLICY orrery_super_admin_update ON retention FOR UPDATE TO orrery_super_admin
    USING ((SELECT caller_mfa())) WITH CHECK ((SELECT caller_mfa()));

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
