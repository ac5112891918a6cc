-- Strategies and conditions of assignments, what a job's routing was, budgets, and news of alerts.

ALTER TABLE assignment_targets
    ADD COLUMN weight double precision NOT NULL DEFAULT 1,
    ADD COLUMN conditions jsonb NOT NULL DEFAULT '{}',
    ADD CONSTRAINT ck_assignment_targets_weight_not_negative CHECK (weight >= 0);
ALTER TABLE feature_ai_assignments DROP CONSTRAINT ck_feature_ai_assignments_strategy_known;
ALTER TABLE feature_ai_assignments ADD CONSTRAINT ck_feature_ai_assignments_strategy_known
    CHECK (strategy in ('priority', 'weighted', 'cheapest', 'fastest', 'least_used'));
GRANT SELECT (weight, conditions) ON assignment_targets TO orrery_super_admin, orrery_admin, orrery_client;
SELECT keep_assignment_version(id) FROM feature_ai_assignments;

ALTER TABLE job_history ADD COLUMN routing jsonb;
COMMENT ON COLUMN job_history.routing IS 'which routes were considered, in what order, and why others were passed over; NULL: there was one';
GRANT SELECT (routing) ON job_history TO orrery_super_admin, orrery_admin, orrery_application, orrery_client;

-- Whose text can be followed while it is written.
ALTER TABLE jobs ADD COLUMN stream boolean NOT NULL DEFAULT false;
GRANT SELECT (stream), INSERT (stream) ON jobs TO orrery_super_admin, orrery_admin, orrery_application, orrery_client;

-- --- Budgets ------------------------------------------------------------------------------------------

-- `scope_id`: a provider's id, a feature's name, an end user; NULL with scope user: each user for himself.
-- Tokens are input and output together.
CREATE TABLE budgets (
    id uuid NOT NULL,
    scope text NOT NULL,
    scope_id text,
    period text NOT NULL,
    limit_usd numeric,
    limit_tokens bigint,
    action text NOT NULL DEFAULT 'alert',
    alert_percent integer[] NOT NULL DEFAULT '{80,100}',
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    updated_by uuid,
    CONSTRAINT pk_budgets PRIMARY KEY (id),
    CONSTRAINT ck_budgets_scope_known CHECK (scope in ('global', 'provider', 'feature', 'user')),
    CONSTRAINT ck_budgets_scope_id_fits CHECK (
        CASE scope WHEN 'global' THEN scope_id IS NULL WHEN 'user' THEN true ELSE scope_id IS NOT NULL END),
    CONSTRAINT ck_budgets_period_known CHECK (period in ('day', 'month')),
    CONSTRAINT ck_budgets_action_known CHECK (action in ('alert', 'downgrade', 'block', 'defer')),
    CONSTRAINT ck_budgets_limited CHECK (limit_usd IS NOT NULL OR limit_tokens IS NOT NULL),
    CONSTRAINT ck_budgets_limits_positive CHECK (least(limit_usd, limit_tokens) > 0)
);
CREATE TRIGGER bump_config_version BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON budgets
    FOR EACH STATEMENT EXECUTE FUNCTION bump_config_version();
SELECT audit_table('budgets', 'budgets');

-- The providers' own token limits are budgets that block, without a row of their own.
CREATE VIEW budgets_in_force AS
SELECT id, scope, scope_id, period, limit_usd, limit_tokens, action, alert_percent FROM budgets WHERE is_active
UNION ALL
SELECT md5(provider.id || own.period)::uuid, 'provider', provider.id::text, own.period, NULL, own.tokens, 'block',
    '{80,100}'
FROM ai_providers AS provider, LATERAL (
    VALUES ('day', provider.daily_token_limit), ('month', provider.monthly_token_limit)) AS own (period, tokens)
WHERE own.tokens IS NOT NULL AND provider.is_active;

-- What was spent where some budget asks for it, by period (UTC).
CREATE TABLE budget_usage (
    scope text NOT NULL,
    scope_id text NOT NULL,
    period text NOT NULL,
    starts_at timestamptz NOT NULL,
    usd numeric NOT NULL DEFAULT 0,
    tokens bigint NOT NULL DEFAULT 0,
    unpriced_calls bigint NOT NULL DEFAULT 0,
    CONSTRAINT pk_budget_usage PRIMARY KEY (scope, scope_id, period, starts_at)
) WITH (fillfactor = 50);

-- What calls under way may cost, at most by estimate. One counts while its job runs this very run.
CREATE TABLE budget_reservations (
    scope text NOT NULL,
    scope_id text NOT NULL,
    period text NOT NULL,
    job_id uuid NOT NULL,
    run integer NOT NULL,
    n integer NOT NULL,
    usd numeric NOT NULL,
    tokens bigint NOT NULL,
    CONSTRAINT pk_budget_reservations PRIMARY KEY (scope, scope_id, period, job_id, run, n)
);
CREATE INDEX ix_budget_reservations_job_id ON budget_reservations (job_id);

-- Which thresholds were reached, so that each is told of once a period.
CREATE TABLE budget_thresholds (
    budget_id uuid NOT NULL,
    scope_id text NOT NULL,
    starts_at timestamptz NOT NULL,
    percent integer NOT NULL,
    reached_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_budget_thresholds PRIMARY KEY (budget_id, scope_id, starts_at, percent)
);

CREATE FUNCTION period_start(period text, at timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT date_trunc(period, at, 'UTC') $$;

CREATE FUNCTION period_end(period text, at timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT (date_trunc(period, at AT TIME ZONE 'UTC') + ('1 ' || period)::interval) AT TIME ZONE 'UTC' $$;

-- --- News of alerts -----------------------------------------------------------------------------------

-- What integrations are to be told. Written with what it tells of; sent, at least once, by whoever finds it.
CREATE TABLE notices (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    integration_id uuid NOT NULL,
    event text NOT NULL,
    content jsonb NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz NOT NULL DEFAULT now(),
    tries integer NOT NULL DEFAULT 0,
    sent_at timestamptz,
    failed_at timestamptz,
    error text,
    CONSTRAINT pk_notices PRIMARY KEY (id),
    CONSTRAINT fk_notices_integration_id_system_integrations FOREIGN KEY (integration_id) REFERENCES system_integrations (id) ON DELETE CASCADE
);
CREATE INDEX ix_notices_due_at ON notices (due_at) WHERE sent_at IS NULL AND failed_at IS NULL;
CREATE INDEX ix_notices_integration_id_made_at ON notices (integration_id, made_at);

-- To every active webhook, mailbox and channel. A bucket is no place for news.
CREATE FUNCTION tell(event text, content jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    INSERT INTO notices (integration_id, event, content)
    SELECT id, tell.event, tell.content FROM system_integrations
    WHERE is_active AND type IN ('webhook', 'slack', 'email')
$$;

-- An alert that opens is news; one that goes on is not. Alerts about budgets tell of each threshold themselves.
CREATE FUNCTION alert_opened() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF NEW.kind <> 'budget' THEN
        PERFORM tell('alert', jsonb_build_object('id', NEW.id, 'kind', NEW.kind, 'noun', NEW.noun,
            'noun_id', NEW.noun_id, 'message', NEW.message, 'at', NEW.first_seen_at));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER alert_opened AFTER INSERT ON alerts FOR EACH ROW EXECUTE FUNCTION alert_opened();

-- --- Spending -----------------------------------------------------------------------------------------

-- Recorders share this lock; whoever begins to count a budget takes it alone, so that each call is counted either
-- in the sum of before or by its recorder.
CREATE FUNCTION budget_lock() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT hashtextextended('orrery budgets', 0) $$;

-- Tells of the thresholds that a counter has reached, of each once a period.
CREATE FUNCTION raise_budget_alerts(spent budget_usage) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    reached record;
    whose CONSTANT text := CASE spent.scope WHEN 'global' THEN '' ELSE format(' for %s %s', spent.scope,
        coalesce((SELECT slug FROM ai_providers WHERE spent.scope = 'provider' AND id::text = spent.scope_id), spent.scope_id)) END;
    message text;
    alert_id uuid;
BEGIN
    FOR reached IN
        WITH burned AS (
            SELECT *, 100 * greatest(spent.usd / limit_usd, spent.tokens::numeric / limit_tokens) AS burn
            FROM budgets_in_force
            WHERE scope = spent.scope AND period = spent.period AND coalesce(scope_id, spent.scope_id) = spent.scope_id
        ), fresh AS (
            INSERT INTO budget_thresholds (budget_id, scope_id, starts_at, percent)
            SELECT id, spent.scope_id, spent.starts_at, threshold FROM burned, unnest(alert_percent) AS threshold
            WHERE burn >= threshold ORDER BY id, threshold
            ON CONFLICT DO NOTHING RETURNING budget_id, percent
        )
        SELECT burned.*, percent FROM fresh JOIN burned ON burned.id = budget_id ORDER BY burned.id, percent
    LOOP
        message := format('The budget of this %s%s has reached %s %%: %s. %s', spent.period, whose, reached.percent,
            concat_ws(' and ',
                CASE WHEN reached.limit_usd IS NOT NULL THEN format('$%s of $%s', round(spent.usd, 4), reached.limit_usd) END,
                CASE WHEN reached.limit_tokens IS NOT NULL THEN format('%s of %s tokens', spent.tokens, reached.limit_tokens) END),
            CASE reached.action WHEN 'block' THEN 'At 100 % jobs that need it fail.'
                WHEN 'defer' THEN 'At 100 % jobs wait for the next period.'
                WHEN 'downgrade' THEN 'At 100 % jobs take their cheapest route.'
                ELSE 'It stops nothing.' END);
        alert_id := raise_alert('budget', 'budgets', reached.id::text, message);
        PERFORM tell('alert', jsonb_build_object('id', alert_id, 'kind', 'budget', 'noun', 'budgets',
            'noun_id', reached.id, 'percent', reached.percent, 'starts_at', spent.starts_at, 'message', message,
            'at', now()));
    END LOOP;
END $$;

-- Every call that is recorded counts, whoever records it; and its run's reservations are settled with it.
CREATE FUNCTION spend() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    touched budget_usage;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(budget_lock());
    IF NOT EXISTS (SELECT FROM budgets_in_force) THEN
        RETURN NULL;
    END IF;
    DELETE FROM budget_reservations AS held USING calls WHERE held.job_id = calls.job_id AND held.run = calls.run;
    FOR touched IN
        INSERT INTO budget_usage AS spent (scope, scope_id, period, starts_at, usd, tokens, unpriced_calls)
        SELECT whose.scope, whose.id, counted.period, period_start(counted.period, finished_at),
            coalesce(sum(cost_usd), 0), sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)),
            count(*) FILTER (WHERE called AND cost_usd IS NULL)
        FROM calls
        CROSS JOIN LATERAL (VALUES
            ('global', ''), ('provider', provider_id::text), ('feature', feature), ('user', user_id)
        ) AS whose (scope, id)
        JOIN (SELECT DISTINCT scope, scope_id, period FROM budgets_in_force) AS counted
          ON counted.scope = whose.scope AND coalesce(counted.scope_id, whose.id) = whose.id
        GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
        ON CONFLICT (scope, scope_id, period, starts_at) DO UPDATE
        SET usd = spent.usd + EXCLUDED.usd, tokens = spent.tokens + EXCLUDED.tokens,
            unpriced_calls = spent.unpriced_calls + EXCLUDED.unpriced_calls
        RETURNING spent.*
    LOOP
        PERFORM raise_budget_alerts(touched);
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER spend AFTER INSERT ON ai_usage_analytics REFERENCING NEW TABLE AS calls
    FOR EACH STATEMENT EXECUTE FUNCTION spend();

-- Begins to count what a budget asks for, with what this period has cost so far: the rollups, and the calls that
-- they have not counted yet.
CREATE FUNCTION count_budgets() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(budget_lock());
    INSERT INTO budget_usage (scope, scope_id, period, starts_at, usd, tokens, unpriced_calls)
    WITH counted AS (
        SELECT DISTINCT scope, scope_id, period, period_start(period, now()) AS starts_at FROM budgets_in_force
    ), called AS (
        SELECT day, provider_id::text AS provider_id, feature, NULL AS user_id, cost_usd,
            input_tokens + output_tokens AS tokens, unpriced_calls
        FROM usage_daily
        WHERE day >= (SELECT (min(starts_at) AT TIME ZONE 'UTC')::date FROM counted)
        UNION ALL
        SELECT day, NULL, NULL, coalesce(user_id, ''), cost_usd, input_tokens + output_tokens, unpriced_calls
        FROM usage_user_daily
        WHERE day >= (SELECT (min(starts_at) AT TIME ZONE 'UTC')::date FROM counted)
        UNION ALL
        SELECT (finished_at AT TIME ZONE 'UTC')::date, provider_id::text, feature, whose.user_id, coalesce(cost_usd, 0),
            coalesce(input_tokens, 0) + coalesce(output_tokens, 0), (called AND cost_usd IS NULL)::integer
        FROM ai_usage_analytics CROSS JOIN (SELECT counted AS snapshot FROM usage_rollup) AS rollup
        CROSS JOIN LATERAL (VALUES (NULL), (coalesce(user_id, ''))) AS whose (user_id)
        WHERE xid >= pg_snapshot_xmin(snapshot) AND NOT pg_visible_in_snapshot(xid, snapshot)
          AND finished_at >= (SELECT min(starts_at) FROM counted)
    )
    SELECT whose.scope, whose.id, counted.period, counted.starts_at, sum(cost_usd), sum(tokens), sum(unpriced_calls)
    FROM called
    CROSS JOIN LATERAL (VALUES
        ('global', CASE WHEN user_id IS NULL THEN '' END),
        ('provider', CASE WHEN user_id IS NULL THEN provider_id END),
        ('feature', CASE WHEN user_id IS NULL THEN feature END),
        ('user', nullif(user_id, ''))
    ) AS whose (scope, id)
    JOIN counted ON counted.scope = whose.scope AND coalesce(counted.scope_id, whose.id) = whose.id
     AND called.day >= (counted.starts_at AT TIME ZONE 'UTC')::date
    GROUP BY 1, 2, 3, 4
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER count_budgets AFTER INSERT OR UPDATE ON budgets FOR EACH STATEMENT EXECUTE FUNCTION count_budgets();
CREATE TRIGGER count_budgets AFTER INSERT OR UPDATE OF daily_token_limit, monthly_token_limit, is_active ON ai_providers
    FOR EACH STATEMENT EXECUTE FUNCTION count_budgets();

-- The budgets that cover a call, each with whose counter it looks at.
CREATE FUNCTION covering_budgets(its_feature text, its_user text, its_provider uuid) RETURNS TABLE (
    id uuid, scope text, scope_id text, period text, limit_usd numeric, limit_tokens bigint, action text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT budget.id, budget.scope, whose.id, budget.period, limit_usd, limit_tokens, action
    FROM budgets_in_force AS budget JOIN (VALUES
        ('global', ''), ('provider', its_provider::text), ('feature', its_feature), ('user', its_user)
    ) AS whose (scope, id) ON whose.scope = budget.scope AND coalesce(budget.scope_id, whose.id) = whose.id
$$;

-- Reserves what a call may cost with every budget that covers it, or with none: then returns the budget in the way
-- that does most. The counters' rows are locked in order, so two callers never reserve the same rest. Budgets that
-- only alert are never in the way, nor, on the cheapest route, are those that send jobs there. Where only what others
-- have reserved takes up the room the action is `wait`: most calls take less than they may. Not synchronously
-- committed: after a crash of PostgreSQL a few calls under way are uncovered.
CREATE FUNCTION reserve_budget(
    its_job uuid, its_run integer, its_n integer, its_feature text, its_user text, its_provider uuid,
    its_usd numeric, its_tokens bigint, is_cheapest boolean
) RETURNS TABLE (
    budget_id uuid, scope text, scope_id text, period text, action text, left_usd numeric, left_tokens bigint,
    seconds_left double precision)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    INSERT INTO budget_usage (scope, scope_id, period, starts_at)
    SELECT DISTINCT scope, scope_id, period, period_start(period, now())
    FROM covering_budgets(its_feature, its_user, its_provider) ORDER BY 1, 2, 3
    ON CONFLICT DO NOTHING;
    PERFORM FROM budget_usage AS spent JOIN (
        SELECT DISTINCT scope, scope_id, period FROM covering_budgets(its_feature, its_user, its_provider)
    ) AS covering USING (scope, scope_id, period)
    WHERE spent.starts_at = period_start(spent.period, now())
    ORDER BY scope, scope_id, period FOR UPDATE OF spent;

    RETURN QUERY
    SELECT budget.id, budget.scope, budget.scope_id, budget.period, CASE WHEN is_spent THEN budget.action ELSE 'wait' END,
        greatest(0, limit_usd - spent.usd), greatest(0, limit_tokens - spent.tokens),
        extract(epoch FROM period_end(budget.period, now()) - now())::float8
    FROM covering_budgets(its_feature, its_user, its_provider) AS budget
    JOIN budget_usage AS spent ON spent.scope = budget.scope AND spent.scope_id = budget.scope_id
        AND spent.period = budget.period AND spent.starts_at = period_start(budget.period, now())
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(usd), 0) AS usd, coalesce(sum(tokens), 0)::bigint AS tokens
        FROM budget_reservations AS reserved
        JOIN jobs ON jobs.id = reserved.job_id AND jobs.run = reserved.run AND jobs.state = 'running'
        WHERE reserved.scope = budget.scope AND reserved.scope_id = budget.scope_id
          AND reserved.period = budget.period
    ) AS held
    CROSS JOIN LATERAL (
        SELECT coalesce(spent.usd + its_usd > limit_usd, false) OR coalesce(spent.tokens + its_tokens > limit_tokens, false)
            AS is_spent
    ) AS verdict
    WHERE (spent.usd + held.usd + its_usd > limit_usd OR spent.tokens + held.tokens + its_tokens > limit_tokens)
      AND (budget.action IN ('block', 'defer') OR budget.action = 'downgrade' AND NOT is_cheapest)
    ORDER BY is_spent DESC, array_position('{block,defer,downgrade}', budget.action), budget.id LIMIT 1;
    IF FOUND THEN
        RETURN;
    END IF;

    INSERT INTO budget_reservations (scope, scope_id, period, job_id, run, n, usd, tokens)
    SELECT DISTINCT scope, scope_id, period, its_job, its_run, its_n, its_usd, its_tokens
    FROM covering_budgets(its_feature, its_user, its_provider)
    ON CONFLICT DO NOTHING;
END $$;

-- Reservations of runs that ended without a call's record, counters of long ago, and news that was told.
CREATE FUNCTION prune_budgets() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    DELETE FROM budget_reservations AS held WHERE NOT EXISTS (
        SELECT FROM jobs WHERE jobs.id = held.job_id AND jobs.run = held.run AND state = 'running');
    DELETE FROM budget_usage WHERE starts_at < now() - interval '13 months';
    DELETE FROM budget_thresholds WHERE starts_at < now() - interval '13 months';
    DELETE FROM notices WHERE made_at < now() - interval '30 days';
$$;

-- --- Rights -------------------------------------------------------------------------------------------

REVOKE ALL ON FUNCTION tell(text, jsonb), alert_opened(), raise_budget_alerts(budget_usage), spend(), count_budgets(),
    covering_budgets(text, text, uuid), prune_budgets(),
    reserve_budget(uuid, integer, integer, text, text, uuid, numeric, bigint, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reserve_budget(uuid, integer, integer, text, text, uuid, numeric, bigint, boolean),
    prune_budgets() TO orrery_worker;

ALTER TABLE budgets ENABLE ROW LEVEL SECURITY;
ALTER TABLE budget_usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE budget_reservations ENABLE ROW LEVEL SECURITY;
ALTER TABLE budget_thresholds ENABLE ROW LEVEL SECURITY;
ALTER TABLE notices ENABLE ROW LEVEL SECURITY;

GRANT SELECT ON budgets_in_force TO orrery_worker, orrery_api, orrery_client;
GRANT SELECT ON budgets, budget_usage, notices TO orrery_super_admin, orrery_admin;
GRANT INSERT, UPDATE, DELETE ON budgets TO orrery_super_admin;
GRANT SELECT ON budget_usage TO orrery_worker, orrery_api;
GRANT SELECT, UPDATE ON notices TO orrery_worker;
DO $$
DECLARE
    seen text;
    caller text;
BEGIN
    FOREACH seen IN ARRAY ARRAY['budgets', 'budget_usage', 'notices'] LOOP
        FOREACH caller IN ARRAY ARRAY['orrery_super_admin', 'orrery_admin'] LOOP
            EXECUTE format('CREATE POLICY %I ON %I FOR SELECT TO %I USING (true)', caller || '_select', seen, caller);
        END LOOP;
    END LOOP;
END $$;
CREATE POLICY orrery_super_admin_insert ON budgets FOR INSERT TO orrery_super_admin WITH CHECK ((SELECT caller_mfa()));
CREATE POLICY orrery_super_admin_update ON budgets FOR UPDATE TO orrery_super_admin
    USING ((SELECT caller_mfa())) WITH CHECK ((SELECT caller_mfa()));
CREATE POLICY orrery_super_admin_delete ON budgets FOR DELETE TO orrery_super_admin USING ((SELECT caller_mfa()));
CREATE POLICY orrery_worker ON budget_usage TO orrery_worker USING (true);
CREATE POLICY orrery_api ON budget_usage TO orrery_api USING (true);
CREATE POLICY orrery_worker ON notices TO orrery_worker USING (true) WITH CHECK (true);

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
