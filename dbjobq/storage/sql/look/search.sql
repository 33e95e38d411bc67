-- search: among the next `scan` jobs of a status that are older than `before`, the ids of those of a queue and a type, at most
-- `limit`, newest first; and the id from which to search on, null at the end. In a form for each status (statements.py).
-- index: job's, done's or lease's primary key, backwards, or done_dead; then, for each that is looked at, one look-up of its body,
-- or of what shows that it still waits. No sort, and no end: `materialized` is read only as far as `limit` needs.
with looked as materialized (
    select {columns} from {members}
     where {key} < coalesce(%(before)s::uuid, 'ffffffff-ffff-ffff-ffff-ffffffffffff'){status}
     order by {key} desc limit %(scan)s::bigint
), found as materialized (
    select looked.id
      from looked{body}
     where (%(queue)s::text is null or queue = (select id from {schema}.queue where name = %(queue)s))
       and (%(type)s::text is null or type = %(type)s){condition}
     limit %(limit)s::bigint
)
select array(select id::text from found) as ids,
       case when (select count(*) from found) >= %(limit)s::bigint then (select id::text from found offset %(limit)s::bigint - 1)
            when %(scan)s::bigint is not null then (select id::text from looked offset %(scan)s::bigint - 1) end as next
