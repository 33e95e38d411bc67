-- get_job: one job, from wherever it stands. index: the primary keys.
-- Columns by name: the plans of running workers and producers outlive a migration that adds one.
select id, type, data, status, queue, priority, attempts, max_retries, execute_at, created_at, updated_at, started_at,
       finished_at, error, result, worker_id
  from {schema}.jobs where id = %(id)s::uuid
