-- idle: a worker is about to sleep: from now on enqueues into these queues (null: all) notify.
-- Returns whether a queue was not wanted before, how many queues there are, and the seconds until the next scheduled
-- job is due.
-- index: queue's primary key; scheduled_due (its first entry).
with marked as (
    update {schema}.queue set wanted = true
     where not wanted and (%(queues)s::int[] is null or id = any (%(queues)s::int[]))
    returning id
)
select exists (select from marked), (select count(*) from {schema}.queue),
       (select date_part('epoch', min(run_at) - clock_timestamp()) from {schema}.scheduled)
