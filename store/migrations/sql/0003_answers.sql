-- Answers kept under an idempotency key, and partitions that exist but do not belong to their table yet.

ALTER TABLE idempotency_keys
    ALTER COLUMN job_id DROP NOT NULL,
    ADD COLUMN answer bytea,
    ADD CONSTRAINT ck_idempotency_keys_used_for CHECK (num_nonnulls(job_id, answer) > 0);
COMMENT ON COLUMN idempotency_keys.answer IS 'sealed: what was sent (a hash of it) and what was answered';
COMMENT ON COLUMN idempotency_keys.job_id IS 'the job, or the first of several, that was stored under the key';
GRANT UPDATE (answer) ON idempotency_keys TO orrery_api;

-- A partition a day (UTC), made ahead. Built beside and then attached: that takes a lock which writers pass.
-- A table of that name which is no partition (detached by hand, or left by a partial restore) is attached. One
-- that cannot be is warned of and left, so that the days behind it get theirs.
CREATE OR REPLACE FUNCTION ensure_partitions(first_day date, days integer) RETURNS integer
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
            CONTINUE WHEN EXISTS (
                SELECT FROM pg_inherits
                WHERE inhrelid = to_regclass(quote_ident(name)) AND inhparent = parent::regclass
            );
            BEGIN
                EXECUTE format('CREATE TABLE IF NOT EXISTS %I (LIKE %I INCLUDING ALL)', name, parent);
                EXECUTE format(
                    'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name,
                    day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
                made := made + 1;
            EXCEPTION WHEN OTHERS THEN
                RAISE WARNING 'Table % cannot become the partition of % for %: %', name, parent, day, SQLERRM
                    USING HINT = format('No job can end on that day. Move its rows aside, DROP TABLE %I, '
                        'and run `orrery migrate`.', name);
            END;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;
