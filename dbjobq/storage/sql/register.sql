-- register: a worker, alive from now on; its number is part of every lease it takes.
insert into {schema}.worker (name, expires_at)
values (%(name)s, clock_timestamp() + %(ttl)s::float8 * interval '1 second')
returning id, {durable}
