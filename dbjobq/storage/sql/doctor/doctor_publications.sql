-- doctor_publications: which publications include tables of ours, and which of these have nothing by which an update or a
-- delete could name a row: PostgreSQL refuses both there.
select pub.pubname::text as name, pub.puballtables as everything, count(*) as tables,
       array_agg(class.relname::text order by class.relname) filter (where (pub.pubupdate or pub.pubdelete) and not case class.relreplident
           when 'f' then true
           when 'd' then exists (select from pg_index where indrelid = class.oid and indisprimary and indimmediate)
           when 'i' then exists (select from pg_index where indrelid = class.oid and indisreplident)
           else false end) as nameless
  from pg_publication as pub
  join pg_publication_tables as published on published.pubname = pub.pubname
  join pg_class as class on class.relname = published.tablename
 where published.schemaname = {channel} and class.relnamespace = (select oid from pg_namespace where nspname = {channel})
 group by pub.pubname, pub.puballtables
 order by pub.pubname
