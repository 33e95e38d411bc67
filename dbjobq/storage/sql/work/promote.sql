-- promote: scheduled → ready, for jobs whose time has come. Their position is when they became due, however late this is
-- sent; those due at the same time keep the order in which they were enqueued. Returns whether there may be more: claims wait
-- until there are not, since the next may be of a higher priority than all that is ready.
-- What somebody who may only enqueue has forged for a job that stands elsewhere, or has ended, goes (docs/decisions/
-- 0013): it has no attempts, and was not written with its body.
-- index: scheduled_due, in its order; job's primary key. locks: the rows it moves, SKIP LOCKED.
-- `since`: as in next_due.sql.
with due as materialized (
    select ctid as tid from {schema}.scheduled
     where run_at >= coalesce(to_timestamp(%(since)s::float8), '-infinity') and run_at <= clock_timestamp()
     order by run_at, enqueued limit 2000 for update skip locked
), moved as (
    delete from {schema}.scheduled where ctid = any (array (select tid from due))
    returning run_at, enqueued, queue, priority, attempts, job_id, xmin as written
), own as (
    select place.*
      from moved as place
     where attempts > 0
        or (select body.xmin = place.written from {schema}.job as body where body.id = place.job_id)
        or not {schema}.stands_elsewhere(job_id, null, queue, priority, enqueued)
), ready as (
    insert into {schema}.ready (position, enqueued, queue, priority, attempts, job_id)
    select (date_part('epoch', run_at) * 1000000)::bigint, enqueued, queue, priority, attempts, job_id from own
    returning queue
)
select (select count(*) from moved) = 2000, count(pg_notify({channel}, 'w' || id))
  from {schema}.queue where wanted and id in (select queue from ready)
