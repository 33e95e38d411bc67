-- progress: what running jobs say of themselves, kept with their lease. index: lease's primary key.
update {schema}.lease set progress = sent.progress::json
  from unnest(%(ids)s::uuid[], %(claims)s::bigint[], %(progress)s::text[]) as sent (id, claim, progress)
 where lease.job_id = any (array [sent.id]) and lease.claim = sent.claim
