-- doctor_horizon: who keeps vacuum from removing dead rows here, those that are furthest behind first. Transactions of
-- other databases do not; slots and standbys do. VACUUM's own are passed over, as VACUUM does.
select 'transaction' as kind, pid::text as name, application_name as application, usename::text as role, state,
       date_part('epoch', clock_timestamp() - xact_start) as seconds, greatest(age(backend_xid), age(backend_xmin)) as behind
  from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid() and coalesce(backend_xid, backend_xmin) is not null
   and backend_type is distinct from 'autovacuum worker' and query !~* '^\s*vacuum'
union all
select 'prepared', gid, null, owner::text, null, date_part('epoch', clock_timestamp() - prepared), age(transaction)
  from pg_prepared_xacts where database = current_database()
union all
select 'slot', slot_name::text, plugin::text, null, case when active then 'active' else 'inactive' end, null,
       greatest(age(xmin), age(catalog_xmin))
  from pg_replication_slots where coalesce(xmin, catalog_xmin) is not null
union all
select 'standby', coalesce(client_addr::text, 'local'), application_name, usename::text, state, null, age(backend_xmin)
  from pg_stat_replication where backend_xmin is not null
 order by behind desc
