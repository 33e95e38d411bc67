-- unlocked: locks these leases, as far as they are held and nobody else has locked them, and names them.
-- index: lease's primary key.
select lease.job_id::text
  from unnest(%(ids)s::uuid[], %(claims)s::bigint[]) as sent (id, claim)
  join {schema}.lease on lease.job_id = any (array [sent.id]) and lease.claim = sent.claim
   for update of lease skip locked
