-- migrate_turn: the right to migrate this schema, held until the transaction ends; else who has it.
-- That transaction idles while the work is done elsewhere, so what the server does to idle ones is switched off for it
-- (transaction_timeout from PostgreSQL 17 on). Does not wait: a statement that waits has a snapshot, and
-- `create index concurrently`, in the process whose turn it is, waits for all that have one.
with key as (
    select hashtextextended('dbjobq.migrate.' || {channel}, 0) as key
)
select pg_try_advisory_xact_lock(key),
       (select pid from pg_locks
         where locktype = 'advisory' and granted and objsubid = 1
           and database = (select oid from pg_database where datname = current_database())
           and classid::bigint << 32 | objid::bigint = key),
       (select count(set_config(name, '0', true)) from pg_settings
         where name in ('idle_in_transaction_session_timeout', 'transaction_timeout'))
  from key
