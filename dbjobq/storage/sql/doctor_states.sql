-- doctor_states: of the newest 100,000 jobs those that are in no place, or in more than one. `ready` is searched as
-- cancel.sql does: what that cannot find is not where it should be, either.
-- index: the primary keys, ready_claim, ready_moved; one look-up each, whatever the planner thinks.
with newest as materialized (
    select id, queue, priority, position from {schema}.job order by id desc limit 100000
), placed as (
    select newest.id, count(place.name) as places, string_agg(place.name, ', ' order by place.name) as names
      from newest
      left join lateral (
               select 'ready' as name from {schema}.ready
                where ready.queue = newest.queue and ready.priority = newest.priority
                  and ready.position = newest.position and ready.job_id = newest.id and ready.enqueued is null
               union all
               select 'ready' from {schema}.ready where ready.job_id = newest.id and ready.enqueued is not null
               union all
               select 'scheduled' from {schema}.scheduled where scheduled.job_id = newest.id
               union all
               select 'lease' from {schema}.lease where lease.job_id = newest.id
               union all
               select 'done' from {schema}.done where done.job_id = newest.id
               offset 0
           ) as place on true
     group by newest.id having count(place.name) <> 1
)
select names, count(*) as jobs, min(id::text) as example from placed group by names order by names nulls first
