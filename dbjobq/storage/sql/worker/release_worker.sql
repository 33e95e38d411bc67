-- release_worker: running → pending, which uses up no attempt, for the jobs that one worker holds by the table but not by
-- its own account (`ids`, `claims`): all of them at the end of its shutdown, those of a claim whose answer was lost at any time.
-- index: none; the lease table holds only what runs now.
with gone as materialized (
    delete from {schema}.lease
     where worker = %(worker)s::int and expires_at is null
       and exists (select from {schema}.worker as own where own.id = %(worker)s::int and own.name = %(name)s::text)
       and (job_id, claim) not in (select * from unnest(%(ids)s::uuid[], %(claims)s::bigint[]))
    returning job_id, attempts, suspect
), back as (
    insert into {schema}.ready (position, enqueued, queue, priority, attempts, job_id, suspect)
    select greatest(body.position, (date_part('epoch', body.execute_at) * 1000000)::bigint), body.position, body.queue,
           body.priority, gone.attempts, gone.job_id, gone.suspect
      from gone, lateral (select * from {schema}.job where job.id = gone.job_id offset 0) as body
    returning queue
), woken as (
    select pg_notify({channel}, 'w' || id) from {schema}.queue where wanted and id in (select queue from back)
)
select job_id::text, (select count(*) from woken) from gone
