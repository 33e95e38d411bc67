-- finish: running → completed, failed or pending, for outcomes of every kind, each fenced by its claim's number.
-- `event`: 2 complete, 3 fail, 5 retry, 6 release. Returns the ids accepted; the others are no longer held.
-- index: lease's, job's and unique_key's primary keys. locks: the leases.
with sent as materialized (
    select * from unnest(%(ids)s::uuid[], %(claims)s::bigint[], %(events)s::smallint[], %(errors)s::text[],
                         %(results)s::text[], %(delays)s::float8[])
               as sent (id, claim, event, error, result, delay)
), gone as materialized (
    delete from {schema}.lease using sent
     where lease.job_id = any (array [sent.id]) and lease.claim = sent.claim
    returning sent.*, lease.claimed_at, lease.worker, lease.attempts, lease.suspect
), kept as (
    insert into {schema}.done (started_at, claim, worker, attempts, status, job_id, result)
    select claimed_at, claim, worker, attempts + (event = 3)::int, event, id, result::json from gone where event in (2, 3)
), noted as (
    insert into {schema}.failure (claim, attempts, job_id, error)
    select claim, attempts + (event in (3, 5))::int, id, error from gone where error is not null
), bodies as materialized (
    select gone.*, body.queue, body.priority, body.position, body.execute_at, body.unique_key
      from gone, lateral (select * from {schema}.job where job.id = gone.id offset 0) as body
), freed as (
    delete from {schema}.unique_key using bodies
     where unique_key.key = any (array [bodies.unique_key]) and unique_key.job_id = bodies.id and event in (2, 3)
), again as (
    insert into {schema}.scheduled (run_at, enqueued, queue, priority, attempts, job_id)
    select clock_timestamp() + delay * interval '1 second', position, queue, priority, attempts + 1, id
      from bodies where event = 5
), back as (
    insert into {schema}.ready (position, enqueued, queue, priority, attempts, job_id, suspect)
    select greatest(position, (date_part('epoch', execute_at) * 1000000)::bigint), position, queue, priority, attempts, id,
           suspect
      from bodies where event = 6
), woken as (
    select pg_notify({channel}, 'w' || id) from {schema}.queue
     where wanted and id in (select queue from bodies where event in (5, 6))
)
select id::text, (select count(*) from woken), {acknowledged} from gone
