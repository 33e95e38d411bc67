-- enqueue_checked: ∅ → pending, with all that enqueue.sql leaves out: a time, a unique key, a caller's own id.
-- index: job's and unique_key's primary keys. locks: the new rows; waits for a transaction that is adding the same key.
-- Returns (id of the job that is there, whether it is new). No row back: the key's holder, or a job of this id, came or
-- went while this ran; ask again. An id that somebody adds right now under another key is an error (a cast that fails):
-- so no key stays behind that belongs to no job. An id of null: the queue of that number does not have that name any more,
-- and nothing was stored (`served` as in enqueue.sql).
with served as materialized (
    {its_queue}
), moment as materialized (
    select clock_timestamp() as now,
           coalesce(%(execute_at)s::timestamptz, clock_timestamp() + %(delay)s::float8 * interval '1 second') as due
), known as materialized (
    select id from {schema}.job where id = %(id)s::uuid
), key as (
    insert into {schema}.unique_key (key, job_id)
    select %(unique_key)s, %(id)s::uuid from served
     where %(unique_key)s::text is not null and not exists (select from known)
    on conflict (key) do nothing
    returning job_id
), body as (
    insert into {schema}.job (created_at, execute_at, queue, priority, max_retries, timeout, id, type, unique_key, data)
    select clock_timestamp(), due, %(queue)s, %(priority)s, %(max_retries)s, %(timeout)s, %(id)s::uuid, %(type)s, %(unique_key)s,
           %(data)s::json
      from moment, served
     where not exists (select from known) and (%(unique_key)s::text is null or exists (select from key))
    on conflict (id) do nothing
    returning id, position, {acknowledged}
), later as (
    insert into {schema}.scheduled (run_at, enqueued, queue, priority, job_id)
    select due, position, %(queue)s, %(priority)s, id from body, moment where due > moment.now
), due as (
    insert into {schema}.ready (position, queue, priority, job_id)
    select position, %(queue)s, %(priority)s, id from body, moment where due is null or due <= moment.now
), answer as materialized (
    select id, true as new from body
    union all
    select id, false from known
    union all
    select job_id, false from {schema}.unique_key where key = %(unique_key)s and not exists (select from known)
    union all
    select null, false where not exists (select from served)
)
select id::text, new, (select pg_notify({channel}, 'w' || served.id) from served where new and wake and %(notify)s::bool)
  from answer
 where not exists (select from key) or exists (select from body)
    or ('id ' || %(id)s || ' is being enqueued with another unique_key, ' || (select count(*) from body))::bool
 limit 1
