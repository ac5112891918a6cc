-- What repeats a job: two look-ups. A job that repeats none, as nearly all, is in neither index and pays nothing.
CREATE INDEX ix_jobs_retry_of ON jobs (retry_of) WHERE retry_of IS NOT NULL;
CREATE INDEX ix_job_history_retry_of ON job_history (retry_of) WHERE retry_of IS NOT NULL;
