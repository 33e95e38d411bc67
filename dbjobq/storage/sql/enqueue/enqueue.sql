-- enqueue: ∅ → pending, the plain case: due at once, no unique key, an id made here. One round trip.
-- index: none is searched but queue's primary key. locks: the new rows.
-- No row back: the queue of that number does not have that name any more (a failover, a restore, a truncate), and nothing
-- was stored.
-- Notifies only where a worker may be asleep (docs/decisions/0004). Within a caller's transaction the snapshot may be older
-- than this statement (repeatable read, serializable) and cannot know: there it always notifies. Nor can such a snapshot
-- see a queue that was added since: `sure` says that the number was asked for on another connection a moment ago.
with served as materialized (
    {its_queue}
), body as (
    insert into {schema}.job (created_at, queue, priority, max_retries, timeout, id, type, data)
    select clock_timestamp(), %(queue)s::int, %(priority)s::int, %(max_retries)s::int, %(timeout)s::float8, %(id)s::uuid, %(type)s,
           %(data)s::json
      from served
    returning id, position, {acknowledged}
), due as (
    insert into {schema}.ready (position, queue, priority, job_id)
    select position, %(queue)s::int, %(priority)s::int, id from body
)
select case when wake{quiet} then pg_notify({channel}, 'w' || id) end from served
