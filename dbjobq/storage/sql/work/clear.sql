-- clear: places whose job's body is gone, since somebody has deleted rows of `job`, or whose job stands elsewhere, since
-- somebody has forged them (`its_body`): sent when a claim has met some. What it has leased of jobs whose body went just then
-- (`ids`, `claims`) is no longer; of what waits in these queues, the first thousand are looked at in each.
-- index: ready_claim, job's and lease's primary keys, then by TID. locks: the rows that go, SKIP LOCKED.
with empty as materialized (
    select place.tid
      from unnest(%(queues)s::int[]) as served (queue),
           lateral (
               select ctid as tid, xmin as written, * from {schema}.ready
                where ready.queue = served.queue order by priority desc, position, enqueued limit 1000
           ) as place {its_body}
     where body.id is null
), held as (
    delete from {schema}.lease using unnest(%(ids)s::uuid[], %(claims)s::bigint[]) as sent (id, claim)
     where lease.job_id = any (array [sent.id]) and lease.claim = sent.claim
), waiting as (
    delete from {schema}.ready
     where ctid = any (array (
               select ctid from {schema}.ready where ctid = any (array (select tid from empty)) for update skip locked))
    returning job_id
)
select count(*) from waiting
