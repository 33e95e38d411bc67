-- doctor_overdue: scheduled jobs that should have become ready long ago: each worker sees to that. index: scheduled_due.
select queue.name, count(*) as jobs, max(date_part('epoch', clock_timestamp() - run_at)) as seconds
  from {schema}.scheduled join {schema}.queue on queue.id = scheduled.queue
 where run_at < clock_timestamp() - interval '1 minute'
 group by queue.name order by queue.name
