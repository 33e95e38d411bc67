-- migrate_holder: who has the second half of the right to migrate (migrate_turn.sql). index: none; locks held now.
select pid from pg_locks
 where locktype = 'relation' and mode = 'ShareUpdateExclusiveLock' and granted
   and database = (select oid from pg_database where datname = current_database())
   and relation = to_regclass({version_table}) limit 1
