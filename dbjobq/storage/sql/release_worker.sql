-- release_worker: running → pending, for all that one worker still holds: the end of its shutdown, free of charge.
-- index: none; the lease table holds only what runs now.
with gone as materialized (
    delete from {schema}.lease where worker = %(worker)s::int and expires_at is null returning job_id, attempts
), back as (
    insert into {schema}.ready (position, queue, priority, attempts, job_id, moved)
    select body.position, body.queue, body.priority, gone.attempts, gone.job_id, true
      from gone, lateral (select * from {schema}.job where job.id = gone.job_id offset 0) as body
    returning queue
), ended as (
    update {schema}.worker set expires_at = least(expires_at, clock_timestamp()) where id = %(worker)s::int
), woken as (
    select pg_notify({channel}, 'w' || id) from {schema}.queue where wanted and id in (select queue from back)
)
select job_id::text, (select count(*) from woken) from gone
