-- intern: the number of a queue's name, given at its first use.
-- index: queue's unique name. locks: none where the name is known; the new row otherwise.
-- Durable whatever the session has set, and a transaction by itself: others use the number as soon as they see it, and wait
-- for who adds it.
-- A new queue is born `wanted`, so that the first enqueue wakes workers that serve every queue. No row back: another
-- transaction is adding the same name at this moment; ask again.
with added as (
    insert into {schema}.queue (name)
    select %(name)s where not exists (select from {schema}.queue where name = %(name)s)
    on conflict (name) do nothing
    returning id
)
select id, {durable} from added
union all
select id, null from {schema}.queue where name = %(name)s
