-- migrate_turn: the first half of the right to migrate this schema, held until the transaction ends; else who has it (`pid`).
-- Whoever may connect can take an advisory lock, so it counts only if the other's role may make or alter the tables
-- (`entitled`). The second half is a lock on the version table, where there is one (migrate_lock.sql).
-- That transaction idles while the work is done elsewhere, so what the server does to idle ones is switched off for it
-- (transaction_timeout from PostgreSQL 17 on). Does not wait: a statement that waits has a snapshot, and
-- `create index concurrently`, in the process whose turn it is, waits for all that have one.
with key as (
    select hashtextextended('dbjobq.migrate.' || {channel}, 0) as key
), other as (
    select pid from pg_locks, key
     where locktype = 'advisory' and granted and objsubid = 1 and pid <> pg_backend_pid()
       and database = (select oid from pg_database where datname = current_database())
       and classid::bigint << 32 | objid::bigint = key
)
select pg_try_advisory_xact_lock(key),
       (select pid from other),
       (select case when owner is not null then pg_has_role(usesysid, owner, 'member')
                    else has_database_privilege(usesysid, current_database(), 'create')
                      or coalesce(has_schema_privilege(usesysid, to_regnamespace({namespace}), 'create'), false) end
          from other join pg_stat_activity as activity on activity.pid = other.pid),
       (select count(set_config(name, '0', true)) from pg_settings
         where name in ('idle_in_transaction_session_timeout', 'transaction_timeout'))
  from key, (select (select relowner from pg_class where oid = to_regclass({version_table})) as owner) as tables
