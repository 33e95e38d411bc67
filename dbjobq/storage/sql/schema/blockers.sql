-- blockers: whose transactions have locks on our tables, the oldest first; for a migration that waited for one in vain.
-- A role without pg_read_all_stats is told of others no more than their pid and their name.
select activity.pid, application_name, coalesce(state, 'active'),
       date_part('epoch', clock_timestamp() - xact_start), held.tables
  from pg_stat_activity as activity
  join (select pid, string_agg(distinct relname, ', ' order by relname) as tables
          from pg_locks join pg_class on pg_class.oid = relation
         where granted and relkind <> 'i' and relnamespace = (select oid from pg_namespace where nspname = {channel})
           and database = (select oid from pg_database where datname = current_database())
         group by pid) as held on held.pid = activity.pid
 where activity.pid <> pg_backend_pid()
 order by xact_start nulls last
 limit 3
