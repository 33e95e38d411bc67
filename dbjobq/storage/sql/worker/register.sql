-- register: a worker, alive from now on; its number is part of every lease it takes.
-- Leases that already stand under that number (the table of workers was emptied, and its numbers begin anew) are not its own:
-- their time is over now, so that rescue takes them.
-- locks: those leases, SKIP LOCKED. index: none; the lease table holds only what runs now.
with added as (
    insert into {schema}.worker (name, expires_at)
    values (%(name)s, clock_timestamp() + %(ttl)s::float8 * interval '1 second')
    returning id
), others as (
    update {schema}.lease set expires_at = clock_timestamp()
     where ctid = any (array (
               select ctid from {schema}.lease
                where worker = (select id from added) and expires_at is null for update skip locked))
)
select id, {durable} from added
