-- retry: failed or cancelled → pending, attempts from 0, due after the delay, and not before its own time if that has not
-- come. Its unique key, if it has one and nobody else has it now, is taken again.
-- In two forms (statements.py): for one job, as of when it had ended (`ended`, as ended.sql told), so that a repeat of a
-- call does not revive it another time; and for many.
-- index: done's and job's primary keys. locks: the done row.
-- Returns how many were revived, and how many exist.
with moment as materialized (
    select clock_timestamp() as now
), gone as (
    delete from {schema}.done where job_id {which} and status in ({fail}, {cancel}){as_of} returning job_id
), body as materialized (
    select job.id, queue, priority, position, unique_key,
           greatest(now + %(delay)s::float8 * interval '1 second', execute_at) as due
      from moment, gone join {schema}.job on job.id = gone.job_id
), key as (
    insert into {schema}.unique_key (key, job_id)
    select unique_key, id from body where unique_key is not null
    on conflict (key) do nothing
), due as (
    insert into {schema}.ready (position, enqueued, queue, priority, job_id)
    select (date_part('epoch', due) * 1000000)::bigint, position, queue, priority, id
      from body, moment where due <= now
), later as (
    insert into {schema}.scheduled (run_at, enqueued, queue, priority, job_id)
    select due, position, queue, priority, id from body, moment where due > now
        on conflict (job_id) do update  -- forged meanwhile: this is the job's own
           set (run_at, enqueued, queue, priority, attempts)
               = (excluded.run_at, excluded.enqueued, excluded.queue, excluded.priority, excluded.attempts)
), woken as (
    select pg_notify({channel}, 'w' || id) from {schema}.queue
     where id in (select queue from body)
       and (wanted or current_setting('transaction_isolation') <> 'read committed')
)
select (select count(*) from gone), (select count(*) from {schema}.job where id {which}), (select count(*) from woken),
       {acknowledged}
