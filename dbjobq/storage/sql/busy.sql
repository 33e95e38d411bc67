-- busy: these queues have more work than this worker can take: enqueues need not notify until somebody sleeps again.
-- Whoever sleeps now is woken once: it may take its share, and will say so again when it has none.
with marked as (
    update {schema}.queue set wanted = false where wanted and id = any (%(queues)s::int[]) returning id
)
select count(pg_notify({channel}, 'w' || id)) from marked
