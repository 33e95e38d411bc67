-- cancel: pending or running → cancelled, at once. A running job loses its lease, so that its result is refused.
-- index: ready_claim by the body's own key, ready_moved, scheduled's and lease's primary keys.
-- Returns (was it cancelled, does the job exist, has it ended). None of the three: it was just moving; ask again.
with body as materialized (
    select id, queue, priority, position, unique_key from {schema}.job where id = %(id)s::uuid
), unmoved as (
    delete from {schema}.ready using body
     where ready.queue = body.queue and ready.priority = body.priority and ready.position = body.position
       and ready.job_id = body.id and ready.enqueued is null
    returning ready.job_id, ready.attempts
), moved as (
    delete from {schema}.ready where job_id = %(id)s::uuid and enqueued is not null returning job_id, attempts
), later as (
    delete from {schema}.scheduled where job_id = %(id)s::uuid returning job_id, attempts
), held as (
    delete from {schema}.lease where job_id = %(id)s::uuid returning job_id, attempts, claimed_at, claim, worker
), gone as (
    select job_id, attempts, null::timestamptz as claimed_at, null::bigint as claim, null::int as worker from unmoved
    union all select job_id, attempts, null, null, null from moved
    union all select job_id, attempts, null, null, null from later
    union all select job_id, attempts, claimed_at, claim, worker from held
), freed as (
    delete from {schema}.unique_key using body
     where unique_key.key = any (array [body.unique_key]) and unique_key.job_id = body.id and exists (select from gone)
), kept as (
    insert into {schema}.done (started_at, claim, worker, attempts, status, job_id)
    select claimed_at, null, worker, attempts, 4, job_id from gone
    returning job_id
), told as (
    select pg_notify({channel}, 'c' || job_id) from held
)
select exists (select from kept), exists (select from body),
       exists (select from {schema}.done where job_id = %(id)s::uuid), (select count(*) from told),
       {acknowledged}
