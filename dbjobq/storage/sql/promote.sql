-- promote: scheduled → ready, for jobs whose time has come. Their position is when they became due, to the microsecond;
-- those due in the same one keep the order in which they were enqueued.
-- index: scheduled_due, in its order. locks: the rows it moves, SKIP LOCKED.
with due as materialized (
    select ctid as tid from {schema}.scheduled where run_at <= clock_timestamp()
     order by run_at limit 2000 for update skip locked
), moved as (
    delete from {schema}.scheduled where ctid = any (array (select tid from due))
    returning run_at, queue, priority, attempts, job_id
), ready as (
    insert into {schema}.ready (position, queue, priority, attempts, job_id, moved)
    select (date_part('epoch', run_at) * 1000000)::bigint
               + row_number() over (partition by run_at order by job_id) - 1,
           queue, priority, attempts, job_id, true
      from moved
    returning queue
)
select count(pg_notify({channel}, 'w' || id))
  from {schema}.queue where wanted and id in (select queue from ready)
