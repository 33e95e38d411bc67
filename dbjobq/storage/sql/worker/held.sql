-- held: which of these jobs are still leased under these claims. index: lease's primary key.
select sent.id::text
  from unnest(%(ids)s::uuid[], %(claims)s::bigint[]) as sent (id, claim)
 where exists (select from {schema}.lease where lease.job_id = any (array [sent.id]) and lease.claim = sent.claim)
