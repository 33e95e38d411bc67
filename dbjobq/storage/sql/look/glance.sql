-- glance: how many jobs have which status. Each is counted to 100,000, and `…_more` says that there are more; `ended` is how many
-- have ended, by the table's statistics.
-- index: the places' smallest, done_dead; no table is read whole. Sent with what keeps the planner to that (LOOKING_UP).
with counted as materialized (
    select (select count(*) from (select from {schema}.ready limit 100001) as places)
         + (select count(*) from (select from {schema}.scheduled limit 100001) as places) as pending,
           (select count(*) from (select from {schema}.lease limit 100001) as places) as running,
           (select count(*) from (select from {schema}.done limit 100001) as places) as done,
           (select count(*) from (select from {schema}.done where status = {fail} limit 100001) as places) as failed,
           (select count(*) from (select from {schema}.done where status = {cancel} limit 100001) as places) as cancelled
)
select least(pending, 100000) as pending, pending > 100000 as pending_more,
       least(running, 100000) as running, running > 100000 as running_more,
       least(failed, 100000) as failed, failed > 100000 as failed_more,
       least(cancelled, 100000) as cancelled, cancelled > 100000 as cancelled_more,
       done <= 100000 as exact,
       case when done <= 100000 then done
            else greatest(100000, reltuples, pg_stat_get_live_tuples(pg_class.oid))::bigint end as ended
  from counted, pg_class where pg_class.oid = {done}::regclass
