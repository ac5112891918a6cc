-- Two roles that own nothing. Services log in as the owner and become one of them (`-c role=...`).
-- Roles belong to the whole cluster, so another database's migration may have made them, or may be making them.
DO $$
DECLARE service text;
BEGIN
    FOREACH service IN ARRAY ARRAY['orrery_worker', 'orrery_api'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', service);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
        IF NOT pg_has_role(current_user, service, 'MEMBER') OR NOT (
            SELECT rolsuper FROM pg_roles WHERE rolname = current_user
        ) THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', service);
        END IF;
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), service);
    END LOOP;
END $$;

REVOKE ALL ON FUNCTION ensure_partitions(date, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_partitions(date, integer) TO orrery_worker;

-- The worker reads the configuration, keys included, and lives the jobs' lives.
GRANT SELECT ON config_state, ai_providers, ai_models, model_prices, features, feature_ai_assignments,
    assignment_targets, prompt_templates TO orrery_worker;
GRANT SELECT (id, role, is_active) ON admins TO orrery_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON jobs TO orrery_worker;
GRANT SELECT, INSERT ON job_history, ai_usage_analytics TO orrery_worker;

-- The API edits the configuration but never reads a sealed key, and adds jobs but never ends one.
GRANT SELECT, UPDATE ON config_state TO orrery_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON ai_models, model_prices, features, feature_ai_assignments,
    assignment_targets, prompt_templates TO orrery_api;
GRANT INSERT, UPDATE, DELETE ON ai_providers TO orrery_api;
DO $$
BEGIN
    EXECUTE (
        SELECT format('GRANT SELECT (%s) ON ai_providers TO orrery_api', string_agg(quote_ident(attname), ', '))
        FROM pg_attribute
        WHERE attrelid = 'ai_providers'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'sealed_key'
    );
END $$;
GRANT SELECT ON admins, app_tokens TO orrery_api;
GRANT SELECT, INSERT, UPDATE (rung_at) ON jobs TO orrery_api;
GRANT SELECT ON job_history, ai_usage_analytics TO orrery_api;
