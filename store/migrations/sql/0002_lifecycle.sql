-- Crash safety: lanes that pause, jobs that run alone, retries as new jobs, idempotency keys, a cap per feature.

ALTER TABLE jobs
    ADD COLUMN scheduled boolean NOT NULL DEFAULT false,
    ADD COLUMN retry_of uuid,
    ADD COLUMN suspect boolean NOT NULL DEFAULT false,
    ADD COLUMN alone boolean NOT NULL DEFAULT false,
    ADD COLUMN crashes smallint NOT NULL DEFAULT 0;
COMMENT ON COLUMN jobs.suspect IS 'was running when its process died: runs alone until it has ended';
COMMENT ON COLUMN jobs.alone IS 'this run is alone in its process: if that dies, this job did it';
COMMENT ON COLUMN jobs.crashes IS 'how many processes it took down while it ran alone';

-- What is due later keeps out of the way of what is due now: with 300,000 jobs of tomorrow in the index a claim
-- took 44 ms. A job's `scheduled` changes at most once, so claims and heartbeats still stay in place.
COMMENT ON COLUMN jobs.scheduled IS 'due later; the feeder clears it when the time has come';
UPDATE jobs SET scheduled = true WHERE run_at > now();
DROP INDEX ix_jobs_lane_priority_id;
CREATE INDEX ix_jobs_lane_priority_id ON jobs (lane, priority, id) WHERE NOT scheduled;
CREATE INDEX ix_jobs_scheduled ON jobs (run_at) WHERE scheduled;

-- `suspect` changes when a process dies and at no other time, so this index keeps claims and heartbeats in place.
CREATE INDEX ix_jobs_suspect ON jobs (id) WHERE suspect;

ALTER TABLE job_history ADD COLUMN retry_of uuid, ADD COLUMN crashes smallint NOT NULL DEFAULT 0;

ALTER TABLE features
    ADD COLUMN max_queued integer,
    ADD CONSTRAINT ck_features_max_queued_positive CHECK (max_queued > 0);

CREATE TABLE lanes (
    name text NOT NULL,
    is_paused boolean NOT NULL DEFAULT false,
    resumed_at timestamptz,
    changed_at timestamptz NOT NULL DEFAULT now(),
    changed_by uuid,
    CONSTRAINT pk_lanes PRIMARY KEY (name),
    CONSTRAINT ck_lanes_name CHECK (name IN ('interactive', 'standard', 'batch'))
);
INSERT INTO lanes (name) VALUES ('interactive'), ('standard'), ('batch');

-- The feeders of all processes share one pace; a row, not a lock, so that a host that vanishes holds up nobody.
CREATE TABLE feeder_state (
    only_row boolean NOT NULL DEFAULT true,
    turned_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_feeder_state PRIMARY KEY (only_row),
    CONSTRAINT ck_feeder_state_only_row CHECK (only_row)
);
INSERT INTO feeder_state DEFAULT VALUES;
GRANT SELECT, UPDATE ON feeder_state TO orrery_worker;

CREATE TABLE idempotency_keys (
    scope text NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    job_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (scope, key)
);
CREATE INDEX ix_idempotency_keys_created_at ON idempotency_keys (created_at);

-- Ends jobs as cancelled, queued or running alike. The API may call it, but neither delete a job nor write history
-- by itself. No lease token goes into history: the run that held it has not recorded anything.
CREATE FUNCTION cancel_jobs(wanted uuid[]) RETURNS SETOF uuid
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    WITH locked AS (
        SELECT id FROM jobs WHERE id = ANY (wanted) ORDER BY id FOR UPDATE
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

REVOKE ALL ON FUNCTION cancel_jobs(uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION cancel_jobs(uuid[]) TO orrery_api, orrery_worker;
GRANT SELECT ON lanes TO orrery_worker, orrery_api;
GRANT UPDATE (is_paused, resumed_at, changed_at, changed_by) ON lanes TO orrery_api;
GRANT SELECT, INSERT ON idempotency_keys TO orrery_api;
GRANT SELECT, DELETE ON idempotency_keys TO orrery_worker;
