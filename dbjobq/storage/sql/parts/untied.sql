-- untied: what hangs on the end of the jobs in `ending` (`id`, `unique_key`) goes with them: a key that a job holds is free
-- again. Part of each statement that ends jobs, but for finish_completed.sql, which is for jobs without ties.
-- index: unique_key's primary key. locks: the rows that go.
freed as (
    delete from {schema}.unique_key using ending
     where unique_key.key = any (array [ending.unique_key]) and unique_key.job_id = ending.id
)
