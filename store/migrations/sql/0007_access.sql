-- Personal keys and integrations.

-- A person's own key for a provider: a routing table, jobs are called with it.
CREATE TABLE admin_provider_settings (
    id uuid NOT NULL,
    admin_id uuid NOT NULL,
    provider_id uuid NOT NULL,
    sealed_key bytea NOT NULL,
    key_version integer NOT NULL,
    key_last4 text NOT NULL,
    use_shared_api boolean NOT NULL DEFAULT false,
    monthly_limit bigint,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    updated_by uuid,
    CONSTRAINT pk_admin_provider_settings PRIMARY KEY (id),
    CONSTRAINT ck_admin_provider_settings_key_version_positive CHECK (key_version > 0),
    CONSTRAINT ck_admin_provider_settings_monthly_limit_positive CHECK (monthly_limit > 0),
    CONSTRAINT uq_admin_provider_settings_admin_id_provider_id UNIQUE (admin_id, provider_id),
    CONSTRAINT fk_admin_provider_settings_admin_id_admins FOREIGN KEY (admin_id) REFERENCES admins (id) ON DELETE CASCADE,
    CONSTRAINT fk_admin_provider_settings_provider_id_ai_providers FOREIGN KEY (provider_id) REFERENCES ai_providers (id) ON DELETE CASCADE
);
CREATE INDEX ix_admin_provider_settings_provider_id ON admin_provider_settings (provider_id);

CREATE TRIGGER bump_config_version BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON admin_provider_settings
    FOR EACH STATEMENT EXECUTE FUNCTION bump_config_version();

-- What admission must know of everybody's keys. A view looks with its owner's eyes: row level security shows
-- people their own rows, but a process takes in jobs for all of them.
CREATE VIEW personal_keys_in_force AS
SELECT id, admin_id, provider_id, key_version, use_shared_api, monthly_limit
FROM admin_provider_settings WHERE is_active;

-- What was spent by personal keys. Calls with shared keys are not in it, so their writers pay nothing for it.
CREATE INDEX ix_ai_usage_analytics_personal_keys
    ON ai_usage_analytics (caller_admin_id, provider_id, finished_at) INCLUDE (input_tokens, output_tokens)
    WHERE key_version < 0;

COMMENT ON COLUMN ai_usage_analytics.key_version IS 'n: the n-th shared key of the provider; -n: the n-th key of the caller''s own for it; 0: none was stored';
COMMENT ON COLUMN job_history.key_version IS 'as in ai_usage_analytics';

CREATE TABLE system_integrations (
    id uuid NOT NULL,
    name text NOT NULL,
    type text NOT NULL,
    category text,
    provider_name text,
    endpoint text,
    sealed_credentials bytea,
    credentials_version integer NOT NULL DEFAULT 0,
    credential_names text[] NOT NULL DEFAULT '{}',
    settings jsonb NOT NULL DEFAULT '{}',
    is_default boolean NOT NULL DEFAULT false,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    updated_by uuid,
    CONSTRAINT pk_system_integrations PRIMARY KEY (id),
    CONSTRAINT ck_system_integrations_type_known CHECK (type in ('webhook', 'email', 'slack', 's3')),
    CONSTRAINT uq_system_integrations_name UNIQUE (name)
);
CREATE UNIQUE INDEX uq_system_integrations_default ON system_integrations (type) WHERE is_default;

-- How the last try went: it changes by itself, so it is no part of the integration.
CREATE TABLE integration_health (
    integration_id uuid NOT NULL,
    last_test_at timestamptz NOT NULL,
    last_ok boolean NOT NULL,
    last_latency_ms integer NOT NULL,
    last_error text,
    CONSTRAINT pk_integration_health PRIMARY KEY (integration_id),
    CONSTRAINT fk_integration_health_integration_id_system_integrations FOREIGN KEY (integration_id) REFERENCES system_integrations (id) ON DELETE CASCADE
);

GRANT SELECT ON admin_provider_settings, system_integrations TO orrery_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON integration_health TO orrery_worker;
GRANT SELECT ON personal_keys_in_force TO orrery_worker, orrery_api;

-- The API writes keys and credentials and never reads them.
GRANT INSERT, UPDATE, DELETE ON admin_provider_settings, system_integrations TO orrery_api;
GRANT SELECT ON integration_health TO orrery_api;
DO $$
DECLARE secretive text;
BEGIN
    FOREACH secretive IN ARRAY ARRAY['admin_provider_settings', 'system_integrations'] LOOP
        EXECUTE (
            SELECT format('GRANT SELECT (%s) ON %I TO orrery_api',
                string_agg(quote_ident(attname), ', '), secretive)
            FROM pg_attribute
            WHERE attrelid = secretive::regclass AND attnum > 0 AND NOT attisdropped
              AND attname NOT LIKE 'sealed%'
        );
    END LOOP;
END $$;

SELECT audit_table('admin_provider_settings', 'personal-keys');
SELECT audit_table('system_integrations', 'integrations');
