-- queue_stats: what waits and runs in each queue, and for how long its oldest due job has been waiting, in seconds.
select queue.name, coalesce(ready.jobs, 0) as ready, coalesce(scheduled.jobs, 0) as scheduled,
       coalesce(lease.jobs, 0) as running, ready.oldest as oldest_ready
  from {schema}.queue
  left join (select queue, count(*) as jobs,
                    greatest(0, date_part('epoch', clock_timestamp()) - min(position) / 1e6) as oldest
               from {schema}.ready group by queue) as ready on ready.queue = queue.id
  left join (select queue, count(*) as jobs from {schema}.scheduled group by queue) as scheduled
         on scheduled.queue = queue.id
  left join (select body.queue, count(*) as jobs
               from {schema}.lease, lateral (select queue from {schema}.job where job.id = lease.job_id offset 0) as body
              group by body.queue) as lease on lease.queue = queue.id
 order by queue.name
