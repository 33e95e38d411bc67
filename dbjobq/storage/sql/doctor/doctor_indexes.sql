-- doctor_indexes: the indexes of our tables, and whether they can be used.
select index.relname::text as name, of.relname::text as "table", indisvalid and indisready as valid
  from pg_index
  join pg_class as index on index.oid = indexrelid
  join pg_class as of on of.oid = indrelid
 where of.relnamespace = (select oid from pg_namespace where nspname = {channel})
 order by index.relname
