-- idle: a worker is about to sleep: from now on enqueues into these queues (null: all) notify.
-- Returns whether a queue was not wanted before, how many queues there are, the seconds until the next scheduled job is
-- due, and the time.
-- index: queue's primary key; scheduled_due (its first entry). `since`: as in next_due.sql.
with marked as (
    update {schema}.queue set wanted = true
     where not wanted and (%(queues)s::int[] is null or id = any (%(queues)s::int[]))
    returning id
)
select exists (select from marked), (select count(*) from {schema}.queue),
       (select date_part('epoch', min(run_at) - clock_timestamp())
          from {schema}.scheduled where run_at >= coalesce(to_timestamp(%(since)s::float8), '-infinity')),
       date_part('epoch', now())
