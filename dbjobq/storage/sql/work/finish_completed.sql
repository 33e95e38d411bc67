-- finish_completed: running → completed, the common case: no result to keep, no ties.
-- index: lease's primary key. locks: the leases. Fenced by the claim's number: no row, no result.
-- `any (array [id])`, here and elsewhere, leaves the planner no other way than a look-up for each id. By plain equality it
-- would read the whole index of a table that was empty when it was analyzed, dead entries and all (docs/decisions/0003).
-- Fewer rows than sent: some results came late (accepted.sql tells which).
with sent as (
    select * from unnest(%(ids)s::uuid[], %(claims)s::bigint[]) as sent (id, claim)
), gone as (
    delete from {schema}.lease using sent
     where lease.job_id = any (array [sent.id]) and lease.claim = sent.claim
    returning lease.claimed_at, lease.claim, lease.worker, lease.attempts, lease.job_id
)
insert into {schema}.done (started_at, claim, worker, attempts, status, job_id)
select claimed_at, claim, worker, attempts, {complete}, job_id from gone
