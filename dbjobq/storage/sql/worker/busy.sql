-- busy: these queues have more work than this worker can take: enqueues need not notify until somebody sleeps again.
-- Whoever sleeps now is woken once: it may take its share, and will say so again when it has none. `b` tells it why, so
-- that it then looks for open writers, too, though another may say it first (docs/decisions/0004).
-- locks: the queues, SKIP LOCKED: who has one is saying the same, and, if it was paused or cut off before the end of its
-- transaction, may have it for long. To wait for that would hold up this exchange, and with it the heartbeat.
with marked as (
    update {schema}.queue set wanted = false
     where ctid = any (array (
               select ctid from {schema}.queue where wanted and id = any (%(queues)s::int[]) for update skip locked))
    returning id
)
select count(pg_notify({channel}, 'b' || id)) from marked
