-- doctor_tables: rows, dead rows and bytes of our tables by the statistics; from how many dead rows on autovacuum is due,
-- and for how many seconds there was no vacuum.
select stat.relname::text as name, greatest(stat.n_live_tup, class.reltuples)::bigint as rows, stat.n_dead_tup as dead,
       pg_relation_size(class.oid) + pg_indexes_size(class.oid) as bytes,
       date_part('epoch', clock_timestamp() - greatest(stat.last_vacuum, stat.last_autovacuum)) as vacuumed,
       coalesce(own ->> 'autovacuum_enabled', 'on')::bool as autovacuum,
       coalesce(own ->> 'autovacuum_vacuum_threshold', current_setting('autovacuum_vacuum_threshold'))::float8
           + coalesce(own ->> 'autovacuum_vacuum_scale_factor', current_setting('autovacuum_vacuum_scale_factor'))::float8
           * greatest(class.reltuples, 0) as due
  from pg_stat_user_tables as stat
  join pg_class as class on class.oid = stat.relid,
       lateral (select json_object_agg(option_name, option_value) as own from pg_options_to_table(class.reloptions)) as options
 where stat.schemaname = {channel}
 order by stat.relname
