-- enqueue_many_begin: what the rows of one COPY have in common: the position of the first (the others follow it by a
-- microsecond each, so that they keep their order), when they are due, as text that means the same whatever DateStyle and
-- TimeZone are, whether that is later than now, and that their transaction is durable. No row back: the queue of that number
-- does not have that name any more (`served` as in enqueue.sql).
with served as materialized (
    {its_queue}
)
select (date_part('epoch', now) * 1000000)::bigint, to_char(due at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00', coalesce(due > now, false), {acknowledged}
  from served, (select clock_timestamp() as now,
               coalesce(%(execute_at)s::timestamptz, clock_timestamp() + %(delay)s::float8 * interval '1 second') as due
       ) as moment
