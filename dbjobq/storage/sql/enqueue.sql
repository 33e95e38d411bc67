-- enqueue: ∅ → pending, the plain case: due at once, no unique key, an id made here. One round trip.
-- index: none is searched but queue's primary key. locks: the new rows.
-- Notifies only where a worker may be asleep (docs/decisions/0004). Within a caller's transaction the snapshot may be older
-- than this statement (repeatable read, serializable) and cannot know: there it always notifies.
with body as (
    insert into {schema}.job (created_at, queue, priority, max_retries, timeout, id, type, data)
    values (clock_timestamp(), %(queue)s, %(priority)s, %(max_retries)s, %(timeout)s, %(id)s::uuid, %(type)s, %(data)s::json)
    returning id, position, {acknowledged}
), due as (
    insert into {schema}.ready (position, queue, priority, job_id)
    select position, %(queue)s, %(priority)s, id from body
)
select pg_notify({channel}, 'w' || id)
  from {schema}.queue
 where id = %(queue)s and (wanted{stale})
