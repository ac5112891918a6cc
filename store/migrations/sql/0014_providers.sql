-- Lists of finished jobs by the provider that served them; what waits in a lane for its time.

-- Behind the id the feature, which is asked for with it: a provider that never serves a feature has as many jobs as
-- any other, and all of them were read to find none.
CREATE INDEX ix_job_history_provider_id ON job_history (provider, id, feature) WHERE provider IS NOT NULL;

-- Counting what is scheduled read all of it: an entry here is as good as nothing, since all of a lane's are equal.
CREATE INDEX ix_jobs_scheduled_lane ON jobs (lane) WHERE scheduled;

-- Metrics are read by the API for itself, and look at the front of the queue, too.
GRANT SELECT (worker, started_at) ON jobs TO orrery_api;
