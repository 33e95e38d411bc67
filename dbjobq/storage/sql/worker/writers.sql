-- writers: transactions that may have looked at `wanted` before it was set, and have not committed yet. They hold this
-- lock from before they look until they end (docs/decisions/0004). Prepared ones have no pid.
select array_agg(distinct virtualtransaction) from pg_locks
 where locktype = 'relation' and mode = 'RowExclusiveLock' and pid is distinct from pg_backend_pid()
   and database = (select oid from pg_database where datname = current_database())
   and relation = any (array[{ready}::regclass, {scheduled}::regclass])
