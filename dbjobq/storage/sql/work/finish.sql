-- finish: running → completed, failed or pending, for outcomes of every kind, each fenced by its claim's number.
-- `event` is a number (models.CODES). Returns the ids accepted and what came of them; the others are no longer held.
-- A job of a type that no worker knows is put off, which uses up no attempt, for as long as that has lasted already (a
-- second to a minute), and fails when it has lasted longer than its `delay`. The time is counted from a row in `failure` with
-- claim 0, as long as that is the job's last failure.
-- index: lease's, job's and unique_key's primary keys, failure_job. locks: the leases.
with sent as materialized (
    select * from unnest(%(ids)s::uuid[], %(claims)s::bigint[], %(events)s::smallint[], %(errors)s::text[],
                         %(results)s::text[], %(delays)s::float8[])
               as sent (id, claim, event, error, result, delay)
), taken as materialized (
    delete from {schema}.lease using sent
     where lease.job_id = any (array [sent.id]) and lease.claim = sent.claim
    returning sent.*, lease.claimed_at, lease.worker, least(lease.attempts, 1000000000) as attempts, lease.suspect
), met as (
    select taken.*,
           case when event = {unknown} then (
               select case when failure.claim = 0 then at end from {schema}.failure
                where failure.job_id = any (array [taken.id]) order by job_id desc, at desc limit 1
           ) end as since
      from taken
), gone as materialized (
    select id, claim, error, result, claimed_at, worker, attempts, suspect, since,
           case when event = {unknown} and coalesce(since, now()) <= now() - delay * interval '1 second' then {fail}
                else event end as event,
           case when event = {unknown} then least(greatest(lasted, 1), greatest(delay - lasted, 0.05), 60) else delay end as delay
      from met, lateral (select coalesce(date_part('epoch', now() - since), 0) as lasted) as so_far
), kept as (
    insert into {schema}.done (started_at, claim, worker, attempts, status, job_id, result)
    select claimed_at, claim, worker, attempts + (event = {fail})::int, event, id, result::json
      from gone where event in ({complete}, {fail})
), noted as (
    insert into {schema}.failure (claim, attempts, job_id, error)
    select case when event = {unknown} then 0 else claim end, attempts + (event in ({fail}, {retry}))::int, id, error
      from gone where error is not null and (event <> {unknown} or since is null)
), bodies as materialized (
    select gone.*, body.queue, body.priority, body.position, body.execute_at, body.unique_key
      from gone, lateral (select * from {schema}.job where job.id = gone.id offset 0) as body
), ending as (
    select id, unique_key from bodies where event in ({complete}, {fail})
), {untied}, again as (
    insert into {schema}.scheduled (run_at, enqueued, queue, priority, attempts, job_id)
    select clock_timestamp() + delay * interval '1 second', position, queue, priority, attempts + (event = {retry})::int, id
      from bodies where event in ({retry}, {unknown})
        on conflict (job_id) do update  -- forged meanwhile: this is the job's own
           set (run_at, enqueued, queue, priority, attempts)
               = (excluded.run_at, excluded.enqueued, excluded.queue, excluded.priority, excluded.attempts)
), back as (
    insert into {schema}.ready (position, enqueued, queue, priority, attempts, job_id, suspect)
    select greatest(position, (date_part('epoch', execute_at) * 1000000)::bigint), position, queue, priority, attempts, id,
           suspect
      from bodies where event = {release}
), woken as (
    select pg_notify({channel}, 'w' || id) from {schema}.queue
     where wanted and id in (select queue from bodies where event in ({retry}, {release}, {unknown}))
)
select id::text, event, (select count(*) from woken), {acknowledged} from gone
