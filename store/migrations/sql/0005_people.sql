-- People: second factors, sessions, throttled logins. None of it is configuration: it changes by itself.

-- A login, until it is revoked or left unused. Access tokens name it and die with it.
CREATE TABLE admin_sessions (
    id uuid NOT NULL,
    admin_id uuid NOT NULL,
    mfa boolean NOT NULL DEFAULT false,
    address text,
    user_agent text,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoked_because text,
    CONSTRAINT pk_admin_sessions PRIMARY KEY (id),
    CONSTRAINT fk_admin_sessions_admin_id_admins FOREIGN KEY (admin_id) REFERENCES admins (id) ON DELETE CASCADE
);
CREATE INDEX ix_admin_sessions_admin_id_id ON admin_sessions (admin_id, id);

-- Each refresh uses one up and makes the next. Used ones are kept for a while: one that comes again was stolen.
CREATE TABLE admin_refresh_tokens (
    token_hash bytea NOT NULL,
    session_id uuid NOT NULL,
    issued_at timestamptz NOT NULL DEFAULT now(),
    used_at timestamptz,
    CONSTRAINT pk_admin_refresh_tokens PRIMARY KEY (token_hash),
    CONSTRAINT fk_admin_refresh_tokens_session_id_admin_sessions FOREIGN KEY (session_id) REFERENCES admin_sessions (id) ON DELETE CASCADE
);
CREATE INDEX ix_admin_refresh_tokens_session_id ON admin_refresh_tokens (session_id);

-- A factor counts once it is confirmed; until then the one before it, if any, stays in force. `last_step` is the
-- 30-second step of the last code that was accepted: it and all before it are used up.
CREATE TABLE admin_second_factors (
    id uuid NOT NULL,
    admin_id uuid NOT NULL,
    sealed_secret bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    confirmed_at timestamptz,
    last_step bigint,
    CONSTRAINT pk_admin_second_factors PRIMARY KEY (id),
    CONSTRAINT fk_admin_second_factors_admin_id_admins FOREIGN KEY (admin_id) REFERENCES admins (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX uq_admin_second_factors_confirmed ON admin_second_factors (admin_id) WHERE confirmed_at IS NOT NULL;
CREATE UNIQUE INDEX uq_admin_second_factors_pending ON admin_second_factors (admin_id) WHERE confirmed_at IS NULL;

CREATE TABLE admin_recovery_codes (
    factor_id uuid NOT NULL,
    code_hash bytea NOT NULL,
    used_at timestamptz,
    CONSTRAINT pk_admin_recovery_codes PRIMARY KEY (factor_id, code_hash),
    CONSTRAINT fk_admin_recovery_codes_factor_id_admin_second_factors FOREIGN KEY (factor_id) REFERENCES admin_second_factors (id) ON DELETE CASCADE
);

-- Where a person has logged in from: strangers elsewhere cannot lock them out there.
CREATE TABLE admin_networks (
    admin_id uuid NOT NULL,
    network text NOT NULL,
    last_login_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_admin_networks PRIMARY KEY (admin_id, network),
    CONSTRAINT fk_admin_networks_admin_id_admins FOREIGN KEY (admin_id) REFERENCES admins (id) ON DELETE CASCADE
);

-- Failed logins, halved again and again as time passes. `key` is a hash of what is throttled: an account, a
-- network, or both. Here and not in Valkey, whose wipe must not open the door; logged, for a crash must not either.
CREATE TABLE login_throttles (
    key bytea NOT NULL,
    failures double precision NOT NULL DEFAULT 0,
    failed_at timestamptz NOT NULL DEFAULT now(),
    blocked_until timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_login_throttles PRIMARY KEY (key)
);
CREATE INDEX ix_login_throttles_failed_at ON login_throttles (failed_at);

CREATE TABLE app_token_uses (
    token_id uuid NOT NULL,
    last_used_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_app_token_uses PRIMARY KEY (token_id),
    CONSTRAINT fk_app_token_uses_token_id_app_tokens FOREIGN KEY (token_id) REFERENCES app_tokens (id) ON DELETE CASCADE
);

-- What somebody has ever done tells whether their row may go.
CREATE INDEX ix_audit_log_admin_id ON audit_log (admin_id);

GRANT SELECT, INSERT, UPDATE, DELETE ON admin_sessions, admin_refresh_tokens, admin_second_factors,
    admin_recovery_codes, admin_networks, login_throttles TO orrery_api;
GRANT SELECT, INSERT, UPDATE ON app_token_uses TO orrery_api;
GRANT UPDATE (password_hash, updated_at, updated_by) ON admins TO orrery_api;
