-- glance_queues: what waits and runs in each queue, and for how long its oldest due job has been waiting, in seconds. At most
-- 1,000 queues, those first that hold something. Ready jobs are counted to 10,000 in each of ten queues, to fewer in each of
-- more; scheduled ones to 100,000 and running ones to 10,000 in all; `…_more` says that there are more.
-- index: ready_claim, from one queue and priority to the next, then a part of each; lease's bodies by job's primary key.
with recursive pair as (
    (select queue, priority, position from {schema}.ready order by queue, priority desc, position limit 1)
    union all
    select next.queue, next.priority, next.position
      from pair,
           lateral (
               select queue, priority, position
                 from ((select queue, priority, position from {schema}.ready
                         where ready.queue = pair.queue and ready.priority < pair.priority
                         order by queue, priority desc, position limit 1)
                       union all
                       (select queue, priority, position from {schema}.ready
                         where ready.queue > pair.queue
                         order by queue, priority desc, position limit 1)) as either
                order by queue limit 1
           ) as next
), waiting as materialized (
    select queue, min(position) as first from (select * from pair limit 10000) as pairs group by queue
), later as materialized (
    select queue, count(*) as jobs, sum(count(*)) over () > 100000 as more
      from (select queue from {schema}.scheduled limit 100001) as places group by queue
), held as materialized (
    select body.queue, count(*) as jobs, sum(count(*)) over () > 10000 as more
      from (select job_id from {schema}.lease limit 10001) as places,
           lateral (select queue from {schema}.job where job.id = places.job_id offset 0) as body
     group by body.queue
), named as materialized (
    select queue.id, queue.name, true as holds
      from (select queue from waiting union select queue from later union select queue from held) as holding,
           lateral (select id, name from {schema}.queue where queue.id = holding.queue offset 0) as queue
    union
    (select id, name, false from {schema}.queue order by id limit 1001)
), chosen as materialized (
    select id, name from named group by id, name order by bool_or(holds) desc, name limit 1001
), each as materialized (
    select least(10000, greatest(100, 100000 / greatest(1, count(*)))) as jobs from chosen
)
select chosen.name, least(ready.jobs, each.jobs) as ready, ready.jobs > each.jobs as ready_more,
       least(coalesce(later.jobs, 0), 100000) as scheduled, coalesce(later.more, false) as scheduled_more,
       least(coalesce(held.jobs, 0), 10000) as running, coalesce(held.more, false) as running_more,
       case when waiting.first is not null
            then greatest(0, date_part('epoch', clock_timestamp()) - waiting.first / 1e6) end as oldest_ready
  from each, chosen
  left join waiting on waiting.queue = chosen.id
  left join later on later.queue = chosen.id
  left join held on held.queue = chosen.id,
       lateral (
           select count(*) as jobs
             from (select from {schema}.ready where ready.queue = chosen.id limit each.jobs + 1) as places
       ) as ready
 order by chosen.name
