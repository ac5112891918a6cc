-- Jobs that are answered through a provider's batch API.

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
