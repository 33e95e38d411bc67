-- idle: a worker is about to sleep: from now on enqueues notify, into all queues, or (`idle_of`) into these.
-- Returns whether a queue was not wanted before (as this statement's snapshot has it: who waits here for another worker
-- that says the same finds nothing left to set, and must look for open writers all the same), how many queues there are, as
-- far as they are few, the seconds until the next scheduled job is due, the time, and whether the worker's number is still its own.
-- index: queue's primary key; scheduled_due (its first entry). `since`: as in next_due.sql.
with marked as (
    update {schema}.queue set wanted = true
     where not wanted{of}
)
select exists (select from {schema}.queue
                where not wanted{of}),
       (select count(*) from (select from {schema}.queue limit %(few)s::int + 1) as counted),
       (select date_part('epoch', min(run_at) - clock_timestamp())
          from {schema}.scheduled where run_at >= coalesce(to_timestamp(%(since)s::float8), '-infinity')),
       date_part('epoch', now()),
       exists (select from {schema}.worker where id = %(worker)s::int and name = %(name)s::text)
