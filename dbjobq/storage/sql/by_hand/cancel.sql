-- cancel: pending or running → cancelled, at once. A running job loses its lease, so that its result is refused.
-- In two forms (statements.py): for one job; and for many, which then passes over those that somebody is just moving: it
-- must not wait while it holds others.
-- index: ready_claim by the body's own key, ready_moved, scheduled's and lease's primary keys. locks: the rows that go.
-- `mark`: the call's own, kept in the place of a claim's number, by which a repeat of the call knows what it did itself.
-- Returns how many were cancelled, exist, and had ended. Those that are none of the three were just moving; ask again.
with body as materialized (
    select id, queue, priority, position, unique_key from {schema}.job where id {which}
), unmoved as materialized (
    select row.tid
      from body,
           lateral (
               select ctid as tid from {schema}.ready
                where ready.queue = body.queue and ready.priority = body.priority and ready.position = body.position
                  and ready.job_id = body.id and ready.enqueued is null
                  for update{patience}
           ) as row
), moved as materialized (
    select ctid as tid from {schema}.ready where job_id {which} and enqueued is not null for update{patience}
), due as (
    delete from {schema}.ready where ctid = any (array (select tid from unmoved union all select tid from moved))
    returning job_id, attempts
), scheduled as materialized (
    select ctid as tid from {schema}.scheduled where job_id {which} for update{patience}
), later as (
    delete from {schema}.scheduled where ctid = any (array (select tid from scheduled)) returning job_id, attempts
), leased as materialized (
    select ctid as tid from {schema}.lease where job_id {which} for update{patience}
), held as (
    delete from {schema}.lease where ctid = any (array (select tid from leased))
    returning job_id, attempts, claimed_at, claim, worker
), gone as materialized (
    select job_id, attempts, null::timestamptz as claimed_at, null::bigint as claim, null::int as worker from due
    union all select job_id, attempts, null, null, null from later
    union all select job_id, attempts, claimed_at, claim, worker from held
), ending as (
    select id, unique_key from body where (select true from gone where gone.job_id = body.id limit 1)
), {untied}, kept as (
    insert into {schema}.done (started_at, claim, worker, attempts, status, job_id)
    select claimed_at, %(mark)s::bigint, worker, attempts, {cancel}, job_id from gone order by claim nulls last
        on conflict (job_id) do nothing  -- it stood in a forged place, too
    returning job_id
), told as (
    select pg_notify({channel}, 'c' || job_id) from held
)
select (select count(*) from kept)
           + (select count(*) from {schema}.done where job_id {which} and status = {cancel} and claim = %(mark)s),
       (select count(*) from body),
       (select count(*) from {schema}.done where job_id {which} and not (status = {cancel} and claim is not distinct from %(mark)s)),
       (select count(*) from told),
       {acknowledged}
