-- claim: pending → running, for at most `limit` due jobs, the queues in the order given.
-- index: ready_claim, in its order: no sort, ends after `limit` rows; then by TID, and job's primary key
--        (tests/storage/test_plans.py).
-- locks: the rows it takes. SKIP LOCKED passes over those another worker is taking.
-- `materialized` keeps the planner from running the LIMIT twice and taking more than asked. `lateral (… offset 0)`
-- leaves it no other plan for the bodies than one look-up each. A place without a body (`its_body`: it is gone, or the job
-- stands elsewhere and somebody has forged a place for it) gets no lease, and has no type in the answer: it is not work, but it
-- counts as found, and clear.sql is to follow. All jobs of a batch share one claim number, which no
-- other batch ever has: it holds the time, since a crash of the server may take the sequence back with claims that were
-- not flushed. Losing one of those is a redelivery; so a batch with a job on its last start is flushed (the last column).
-- Nothing is taken unless the worker's number is still its own: whose number has no row is never rescued (idle.sql tells it).
-- `beat` extends the worker's life with the first claim after an idle spell. Queue and priority are those
-- of the job's place, whatever a body says that was not written by us.
-- Data that is large, or compressed and may be, is not brought: bodies.sql does, as far as there is room for it. So the answer
-- has a bound, some 8 MB for 500 jobs.
-- Sent in four forms (statements.py). `claim_by_hand` is given its number, which dequeue_begin.sql has drawn.
-- `claim_any` serves all queues, beginning with number `turn`: it goes from one that has something ready to the next by the
-- index, and no further than the limit goes. So it does not matter how many queues there are; `claim` is cheaper where they are few.
-- `claim_after` looks only behind a position in each queue and priority it is given, so that it does not walk again over
-- index entries of rows that are gone but, while an old snapshot is held somewhere, cannot be vacuumed. It may miss some:
-- claim_start.py says when it does, and when `claim` must follow.
with {held_queues}picked as materialized (
    select row.tid
      from {served},
           lateral (
               select ctid as tid from {schema}.ready
                where ready.queue = served.queue{behind}
                order by priority desc, position, enqueued
                limit %(limit)s::int
                  for update skip locked
           ) as row
     where exists (select from {schema}.worker where id = %(worker)s::int and name = %(name)s::text)
     limit %(limit)s::int
), moved as materialized (
    delete from {schema}.ready where ctid = any (array (select tid from picked))
    returning queue, job_id, attempts, suspect, priority, position, enqueued, ctid as tid, xmin as written
), found as materialized (
    select place.queue, place.job_id, place.attempts, place.suspect, place.priority, place.position, place.enqueued,
           body.type, body.max_retries, body.timeout, {ties} as ties, body.created_at, body.execute_at,
           case when pg_column_size(body.data) <= 2048
                  or pg_column_size(body.data) <= 16384 and pg_column_compression(body.data) is null then body.data::text end
               as data
      from moved as place {its_body}
), drawn as materialized (
    select {number} as claim
), held as (
    insert into {schema}.lease (claim, claimed_at, expires_at, worker, attempts, job_id, suspect)
    select (select claim from drawn), now(), clock_timestamp() + %(lease)s::float8 * interval '1 second',
           %(worker)s::int, attempts, job_id, suspect
      from found where type is not null
), beat as (
    update {schema}.worker set expires_at = clock_timestamp() + %(beat)s::float8 * interval '1 second'
     where id = %(worker)s::int and %(beat)s::float8 is not null and exists (select from moved)
)
select job_id::text, (select claim from drawn)::text, attempts, type, data, queue, priority, max_retries, timeout, ties,
       position, date_part('epoch', created_at), date_part('epoch', execute_at), date_part('epoch', now()), suspect,
       case when max_retries <= attempts then {durable} end
  from found
 order by {turns}, priority desc, position, enqueued
