-- doctor_overdue: scheduled jobs that should have become ready long ago: each worker sees to that. 10,000 are looked at, those
-- that have been due longest. index: scheduled_due.
select queue.name, count(*) as jobs, max(date_part('epoch', clock_timestamp() - run_at)) as seconds,
       sum(count(*)) over () >= 10000 as more
  from (select queue, run_at from {schema}.scheduled
         where run_at < clock_timestamp() - interval '1 minute' order by run_at limit 10000) as overdue
  join {schema}.queue on queue.id = overdue.queue
 group by queue.name order by queue.name
