-- doctor_states: of the newest 10,000 jobs those that are in no place, or in more than one. `ready` is searched as
-- cancel.sql does: what that cannot find is not where it should be, either.
-- index: the primary keys, each read from the oldest of these jobs on; ready_claim and ready_moved, one look-up each.
with newest as materialized (
    select id, queue, priority, position from {schema}.job order by id desc limit 10000
), since as materialized (
    select id from newest order by id limit 1
), placed as materialized (
    (select job_id, 'scheduled' as name from {schema}.scheduled where job_id >= (select id from since) limit 20000)
    union all
    (select job_id, 'lease' from {schema}.lease where job_id >= (select id from since) limit 20000)
    union all
    (select job_id, 'done' from {schema}.done where job_id >= (select id from since) limit 20000)
    union all
    select newest.id, 'ready'
      from newest,
           lateral (
               (select from {schema}.ready
                 where ready.queue = newest.queue and ready.priority = newest.priority
                   and ready.position = newest.position and ready.job_id = newest.id and ready.enqueued is null)
               union all
               (select from {schema}.ready where ready.job_id = newest.id and ready.enqueued is not null)
               offset 0
           ) as place
), summed as (
    select newest.id, count(placed.name) as places, string_agg(placed.name, ', ' order by placed.name) as names
      from newest left join placed on placed.job_id = newest.id
     group by newest.id having count(placed.name) <> 1
)
select names, count(*) as jobs, min(id::text) as example from summed group by names order by names nulls first
