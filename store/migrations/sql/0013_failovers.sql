-- Which calls were failovers, what was spent in vain, and how many calls' tokens are estimates.

ALTER TABLE ai_usage_analytics ADD COLUMN failover boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN ai_usage_analytics.failover IS 'the first try of a route after another one of the same run failed';

LOCK TABLE usage_rollup IN SHARE ROW EXCLUSIVE MODE;  -- nobody counts meanwhile
DO $$
DECLARE
    rollup text;
BEGIN
    FOREACH rollup IN ARRAY ARRAY[
        'usage_hourly', 'usage_overall_hourly', 'usage_daily', 'usage_totals', 'usage_user_daily'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ADD COLUMN wasted_usd numeric NOT NULL DEFAULT 0, '
            'ADD COLUMN failovers integer NOT NULL DEFAULT 0, '
            'ADD COLUMN estimated_calls integer NOT NULL DEFAULT 0', rollup);
    END LOOP;
    -- What has been counted already. Failovers and estimates of before were not told apart, and count as none.
    FOREACH rollup IN ARRAY ARRAY['usage_hourly', 'usage_daily', 'usage_totals'] LOOP
        EXECUTE format('UPDATE %I SET wasted_usd = cost_usd WHERE outcome <> ''succeeded'' AND cost_usd > 0', rollup);
    END LOOP;
END $$;
ALTER TABLE usage_totals ALTER COLUMN failovers TYPE bigint, ALTER COLUMN estimated_calls TYPE bigint;
UPDATE usage_overall_hourly AS overall SET wasted_usd = found.wasted FROM (
    SELECT hour, sum(wasted_usd) AS wasted FROM usage_hourly WHERE wasted_usd > 0 GROUP BY hour
) AS found WHERE overall.hour = found.hour;
UPDATE usage_user_daily AS daily SET wasted_usd = found.wasted FROM (
    SELECT left(user_id, 200) AS user_id, (finished_at AT TIME ZONE 'UTC')::date AS day, sum(cost_usd) AS wasted
    FROM ai_usage_analytics, usage_rollup
    WHERE outcome <> 'succeeded' AND cost_usd > 0 AND (xid IS NULL OR pg_visible_in_snapshot(xid, counted))
    GROUP BY 1, 2
) AS found WHERE daily.user_id IS NOT DISTINCT FROM found.user_id AND daily.day = found.day;

GRANT SELECT (wasted_usd, failovers, estimated_calls)
ON usage_hourly, usage_overall_hourly, usage_daily, usage_totals, usage_user_daily TO orrery_super_admin, orrery_admin;
GRANT SELECT (failover) ON ai_usage_analytics TO orrery_super_admin, orrery_admin, orrery_application;
