-- rescue: running → pending, or failed where no retry is left, for leases whose worker is gone. One attempt each. So many
-- at a time that nobody waits long for it: whoever sends it sends it again, until it returns nothing.
-- No leader, and no lock but on the leases: two that are sent at once take different ones.
-- The claim's number is not kept: what that worker still sends must not be taken for written (accepted.sql).
-- Waits for no disk and no standby: what is lost in a crash is done again. But where it wakes somebody, for the lock of
-- NOTIFY: so it is never sent by the thread that beats.
-- Where `attempts` is as high as it can be, no retry is left, whatever the job says: one row must not stop all rescues.
-- index: job's primary key. locks: the leases it takes, SKIP LOCKED: one may be in the transaction of a worker that was cut
-- off before its COMMIT, and stay so for as long as the server waits for it.
with over as materialized (
    select ctid as tid from {schema}.lease
     where case when expires_at is not null then expires_at < clock_timestamp()
                else not exists (select from {schema}.worker
                                  where worker.id = lease.worker and worker.expires_at >= clock_timestamp()) end
     limit 500
       for update skip locked
), gone as materialized (
    delete from {schema}.lease where ctid = any (array (select tid from over))
    returning claimed_at, worker, least(attempts, 1000000000) as attempts, job_id
), bodies as materialized (
    select gone.*, body.queue, body.priority, body.position, body.execute_at, body.unique_key, body.type,
           least(body.max_retries, 1000000000) as max_retries
      from gone, lateral (select * from {schema}.job where job.id = gone.job_id offset 0) as body
), noted as (
    insert into {schema}.failure (attempts, job_id, error)
    select bodies.attempts + 1, job_id,
           'WorkerLost: worker ' || coalesce(worker.name, '?') || ' stopped renewing its lease while it held this job (killed, cut off '
           || 'or paused); this was attempt ' || bodies.attempts + 1 || ' of ' || max_retries::bigint + 1
      from bodies left join {schema}.worker on worker.id = bodies.worker
), kept as (
    insert into {schema}.done (started_at, worker, attempts, status, job_id)
    select claimed_at, worker, attempts + 1, {fail}, job_id from bodies where attempts >= max_retries
), ending as (
    select job_id as id, unique_key from bodies where attempts >= max_retries
), {untied}, back as (
    insert into {schema}.ready (position, enqueued, queue, priority, attempts, job_id, suspect)
    select greatest(position, (date_part('epoch', execute_at) * 1000000)::bigint), position, queue, priority,
           attempts + 1, job_id, true from bodies where attempts < max_retries
), woken as (
    select pg_notify({channel}, 'w' || id) from {schema}.queue
     where wanted and id in (select queue from bodies where attempts < max_retries)
)
select job_id::text, type, (select name from {schema}.queue where id = bodies.queue), attempts, attempts >= max_retries,
       (select count(*) from woken), set_config('synchronous_commit', 'off', true)
  from bodies
