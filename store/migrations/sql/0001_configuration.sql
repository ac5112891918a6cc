-- Configuration: what administrators edit. Every table but admins and app_tokens is a routing table.

CREATE TABLE admins (
    id uuid NOT NULL,
    email text NOT NULL,
    password_hash text NOT NULL,
    role text NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    updated_by uuid,
    CONSTRAINT pk_admins PRIMARY KEY (id),
    CONSTRAINT ck_admins_role_known CHECK (role in ('super_admin', 'admin')),
    CONSTRAINT ck_admins_email_lower CHECK (email = lower(email)),
    CONSTRAINT uq_admins_email UNIQUE (email)
);

CREATE TABLE ai_providers (
    id uuid NOT NULL,
    slug text NOT NULL,
    name text NOT NULL,
    display_name text,
    type text NOT NULL,
    organization text,
    base_url text NOT NULL,
    api_version text,
    sealed_key bytea,
    key_version integer NOT NULL DEFAULT 0,
    key_last4 text,
    capabilities text[] NOT NULL DEFAULT '{}',
    settings jsonb NOT NULL DEFAULT '{}',
    requests_per_minute integer,
    tokens_per_minute integer,
    max_concurrency integer,
    daily_token_limit bigint,
    monthly_token_limit bigint,
    allow_shared_for_normal_admins boolean NOT NULL DEFAULT true,
    allow_private_network boolean NOT NULL DEFAULT false,
    timeout_seconds double precision,
    is_active boolean NOT NULL DEFAULT true,
    sort_order integer NOT NULL DEFAULT 0,
    website text,
    description text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    updated_by uuid,
    CONSTRAINT pk_ai_providers PRIMARY KEY (id),
    CONSTRAINT ck_ai_providers_slug_form CHECK (slug ~ '^[a-z0-9][a-z0-9_-]*$'),
    CONSTRAINT ck_ai_providers_timeout_positive CHECK (timeout_seconds > 0),
    CONSTRAINT uq_ai_providers_slug UNIQUE (slug)
);

CREATE TABLE features (
    id uuid NOT NULL,
    name text NOT NULL,
    category text,
    description text,
    capability text NOT NULL,
    lane text NOT NULL DEFAULT 'standard',
    input_schema jsonb NOT NULL DEFAULT '{}',
    output_schema jsonb,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    updated_by uuid,
    CONSTRAINT pk_features PRIMARY KEY (id),
    CONSTRAINT ck_features_name_form CHECK (name ~ '^[a-z][a-z0-9_]*$'),
    CONSTRAINT ck_features_capability_known CHECK (capability in ('text', 'vision', 'speech', 'transcription', 'moderation', 'embedding', 'image')),
    CONSTRAINT ck_features_lane_known CHECK (lane in ('interactive', 'standard', 'batch')),
    CONSTRAINT uq_features_name UNIQUE (name)
);

CREATE TABLE ai_models (
    id uuid NOT NULL,
    provider_id uuid NOT NULL,
    model_id text NOT NULL,
    name text NOT NULL,
    display_name text,
    version text,
    api_style text NOT NULL DEFAULT 'chat',
    capabilities text[] NOT NULL DEFAULT '{text}',
    context_window integer,
    max_output_tokens integer,
    supports_streaming boolean NOT NULL DEFAULT true,
    retires_at date,
    default_parameters jsonb NOT NULL DEFAULT '{}',
    constraints jsonb NOT NULL DEFAULT '{}',
    is_default boolean NOT NULL DEFAULT false,
    is_active boolean NOT NULL DEFAULT true,
    sort_order integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    updated_by uuid,
    CONSTRAINT pk_ai_models PRIMARY KEY (id),
    CONSTRAINT uq_ai_models_provider_id_model_id UNIQUE (provider_id, model_id),
    CONSTRAINT ck_ai_models_context_window_positive CHECK (context_window > 0),
    CONSTRAINT ck_ai_models_max_output_tokens_positive CHECK (max_output_tokens > 0),
    CONSTRAINT fk_ai_models_provider_id_ai_providers FOREIGN KEY (provider_id) REFERENCES ai_providers (id)
);

CREATE TABLE app_tokens (
    id uuid NOT NULL,
    name text NOT NULL,
    owner_admin_id uuid,
    scopes text[] NOT NULL,
    token_hash bytea NOT NULL,
    token_last4 text NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    CONSTRAINT pk_app_tokens PRIMARY KEY (id),
    CONSTRAINT fk_app_tokens_owner_admin_id_admins FOREIGN KEY (owner_admin_id) REFERENCES admins (id),
    CONSTRAINT uq_app_tokens_token_hash UNIQUE (token_hash)
);

CREATE TABLE prompt_templates (
    id uuid NOT NULL,
    feature_id uuid NOT NULL,
    version integer NOT NULL,
    system_template text,
    user_template text,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    CONSTRAINT pk_prompt_templates PRIMARY KEY (id),
    CONSTRAINT uq_prompt_templates_feature_id_version UNIQUE (feature_id, version),
    CONSTRAINT fk_prompt_templates_feature_id_features FOREIGN KEY (feature_id) REFERENCES features (id) ON DELETE CASCADE
);

CREATE TABLE feature_ai_assignments (
    id uuid NOT NULL,
    feature_id uuid NOT NULL,
    strategy text NOT NULL DEFAULT 'priority',
    prompt_template_id uuid,
    parameters jsonb NOT NULL DEFAULT '{}',
    max_retries integer NOT NULL DEFAULT 3,
    retry_delay_seconds double precision NOT NULL DEFAULT 2,
    timeout_seconds double precision,
    deadline_seconds double precision,
    use_any_active_model boolean NOT NULL DEFAULT false,
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    updated_by uuid,
    CONSTRAINT pk_feature_ai_assignments PRIMARY KEY (id),
    CONSTRAINT ck_feature_ai_assignments_strategy_known CHECK (strategy in ('priority')),
    CONSTRAINT ck_feature_ai_assignments_max_retries_range CHECK (max_retries between 0 and 20),
    CONSTRAINT ck_feature_ai_assignments_retry_delay_not_negative CHECK (retry_delay_seconds >= 0),
    CONSTRAINT ck_feature_ai_assignments_timeout_positive CHECK (timeout_seconds > 0),
    CONSTRAINT ck_feature_ai_assignments_deadline_positive CHECK (deadline_seconds > 0),
    CONSTRAINT uq_feature_ai_assignments_feature_id UNIQUE (feature_id),
    CONSTRAINT fk_feature_ai_assignments_feature_id_features FOREIGN KEY (feature_id) REFERENCES features (id) ON DELETE CASCADE,
    CONSTRAINT fk_feature_ai_assignments_prompt_template_id_prompt_templates FOREIGN KEY (prompt_template_id) REFERENCES prompt_templates (id)
);

CREATE TABLE model_prices (
    id uuid NOT NULL,
    model_id uuid NOT NULL,
    valid_from timestamptz NOT NULL DEFAULT now(),
    price_unit text NOT NULL DEFAULT 'tokens',
    input_price_per_1k numeric,
    output_price_per_1k numeric,
    cached_input_price_per_1k numeric,
    cache_write_price_per_1k numeric,
    batch_input_price_per_1k numeric,
    batch_output_price_per_1k numeric,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    CONSTRAINT pk_model_prices PRIMARY KEY (id),
    CONSTRAINT uq_model_prices_model_id_valid_from UNIQUE (model_id, valid_from),
    CONSTRAINT ck_model_prices_unit_known CHECK (price_unit in ('tokens', 'characters', 'seconds', 'images')),
    CONSTRAINT ck_model_prices_not_negative CHECK (least(input_price_per_1k, output_price_per_1k, cached_input_price_per_1k, cache_write_price_per_1k, batch_input_price_per_1k, batch_output_price_per_1k) >= 0),
    CONSTRAINT fk_model_prices_model_id_ai_models FOREIGN KEY (model_id) REFERENCES ai_models (id) ON DELETE CASCADE
);

CREATE TABLE assignment_targets (
    assignment_id uuid NOT NULL,
    position integer NOT NULL,
    model_id uuid NOT NULL,
    CONSTRAINT pk_assignment_targets PRIMARY KEY (assignment_id, position),
    CONSTRAINT ck_assignment_targets_position_not_negative CHECK (position >= 0),
    CONSTRAINT fk_assignment_targets_assignment_id_feature_ai_assignments FOREIGN KEY (assignment_id) REFERENCES feature_ai_assignments (id) ON DELETE CASCADE,
    CONSTRAINT fk_assignment_targets_model_id_ai_models FOREIGN KEY (model_id) REFERENCES ai_models (id)
);

CREATE INDEX ix_ai_models_provider_id ON ai_models (provider_id);
CREATE INDEX ix_assignment_targets_model_id ON assignment_targets (model_id);

-- One row counts the versions of the routing configuration. A worker whose claim returns a higher version than
-- its snapshot's loads a newer snapshot before it resolves: that is the whole of hot swap.
CREATE TABLE config_state (
    only_row boolean NOT NULL DEFAULT true,
    version bigint NOT NULL DEFAULT 1,
    changed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_config_state PRIMARY KEY (only_row),
    CONSTRAINT ck_config_state_only_row CHECK (only_row)
);
INSERT INTO config_state DEFAULT VALUES;

CREATE FUNCTION bump_config_version() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE config_state SET version = version + 1, changed_at = now();
    RETURN NULL;
END $$;

-- BEFORE and per statement: the version row is locked before any configuration row, by every writer in the same
-- order, so that writers queue instead of deadlocking.
DO $$
DECLARE routing_table text;
BEGIN
    FOREACH routing_table IN ARRAY ARRAY[
        'ai_providers', 'ai_models', 'model_prices', 'features',
        'feature_ai_assignments', 'assignment_targets', 'prompt_templates'
    ] LOOP
        EXECUTE format(
            'CREATE TRIGGER bump_config_version BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %I '
            'FOR EACH STATEMENT EXECUTE FUNCTION bump_config_version()', routing_table);
    END LOOP;
END $$;
