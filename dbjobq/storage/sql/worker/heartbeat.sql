-- heartbeat: a worker lives on. Never revives one that has expired: its jobs may be being given away right now.
-- No row back: expired, or the number is not its own any more. index: worker's primary key.
-- Waits for no disk and no standby: what makes commits slow must not make workers look dead.
update {schema}.worker set expires_at = clock_timestamp() + %(ttl)s::float8 * interval '1 second'
 where id = %(worker)s::int and name = %(name)s::text and expires_at > clock_timestamp()
returning set_config('synchronous_commit', 'off', true)
