-- bodies: the data of jobs that a claim took and did not bring, because it is large: in the order given, for as long as there
-- is room for it, and that of the first in any case.
-- How long it is, is told without reading it, unless it is compressed. Looked at one by one, and no further than the room
-- goes, so that no more is unpacked than is returned, but for one.
-- index: job's primary key, a look-up for each.
with recursive body (n, id, size, total) as (
    select 0, null::uuid, 0::bigint, 0::bigint
    union all
    select n + 1, next.id, next.size, total + next.size
      from body,
           lateral (
               select job.id, case when pg_column_compression(data) is null then pg_column_size(data)
                                   else octet_length(data::text) end as size
                 from {schema}.job where job.id = (%(ids)s::uuid[])[n + 1] offset 0
           ) as next
     where total < %(room)s::bigint
)
select body.id::text, text.data
  from body, lateral (select data::text from {schema}.job where job.id = body.id offset 0) as text
 where n = 1 or n > 1 and total <= %(room)s::bigint
 order by n
