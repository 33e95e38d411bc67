-- doctor_server: what server this is, how full it is, and whether this role sees what others do there.
select current_setting('server_version_num')::int as number, current_setting('server_version') as version,
       pg_is_in_recovery() as standby, current_setting('transaction_read_only')::bool as read_only,
       current_user as role, pg_has_role('pg_read_all_stats', 'usage') as sees_all,
       (select sum(numbackends)::int from pg_stat_database) as connections,
       current_setting('max_connections')::int as room
