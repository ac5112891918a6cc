-- Probes of providers that nobody calls, and alerts about days that cost more than usual.

-- Of the newest probe that was answered, or was not; `last_probe_at` also while one is under way.
ALTER TABLE provider_health
    ADD COLUMN last_probe_at timestamptz,
    ADD COLUMN last_probe_ok boolean,
    ADD COLUMN last_probe_ms integer,
    ADD COLUMN last_probe_error text;
GRANT SELECT (last_probe_at, last_probe_ok, last_probe_ms, last_probe_error) ON provider_health
    TO orrery_api, orrery_super_admin, orrery_admin;

-- Today up to this hour against the mean of the same hours of the last seven days, of those that cost anything: overall
-- and by feature, of each once a day. One process at a time; the others find it done.
CREATE FUNCTION raise_cost_anomalies(times numeric, excess_usd numeric) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    today CONSTANT timestamptz := period_start('day', now());
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('orrery costs', 0)) THEN
        RETURN 0;
    END IF;
    RETURN (
        WITH costs AS (
            SELECT whose.noun, whose.id, period_start('day', hour) AS day, sum(cost_usd) AS usd
            FROM usage_hourly CROSS JOIN LATERAL (VALUES ('usage', 'all'), ('features', feature)) AS whose (noun, id)
            WHERE hour >= today - interval '7 days' AND hour - period_start('day', hour) <= now() - today
            GROUP BY 1, 2, 3
        ), compared AS (
            SELECT noun, id, sum(usd) FILTER (WHERE day = today) AS spent,
                avg(usd) FILTER (WHERE day < today AND usd > 0) AS usual
            FROM costs GROUP BY 1, 2
        )
        SELECT count(raise_alert('cost_anomaly', noun, id, format(
            '%s cost $%s today, and usually $%s by this hour. Look at who calls; a budget would hold it.',
            CASE noun WHEN 'usage' THEN 'All calls' ELSE 'Calls of ' || id END, round(spent, 2), round(usual, 2))))
        FROM compared
        WHERE spent > times * usual AND spent - usual > excess_usd AND NOT EXISTS (
            SELECT FROM alerts
            WHERE alerts.kind = 'cost_anomaly' AND alerts.noun = compared.noun AND noun_id = compared.id
              AND last_seen_at >= today)
    );
END $$;

REVOKE ALL ON FUNCTION raise_cost_anomalies(numeric, numeric) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION raise_cost_anomalies(numeric, numeric) TO orrery_worker;

DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION raise_cost_anomalies(numeric, numeric) SET search_path = %I, pg_temp', current_schema());
END $$;
