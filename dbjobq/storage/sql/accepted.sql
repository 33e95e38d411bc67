-- accepted: which of these results the table already has, by id and claim. A result that is sent again after its reply
-- was lost finds its lease gone: here it is told from one that came too late.
-- index: done's primary key, failure_job.
select sent.id::text
  from unnest(%(ids)s::uuid[], %(claims)s::bigint[]) as sent (id, claim)
 where exists (select from {schema}.done where done.job_id = sent.id and done.claim = sent.claim)
    or exists (select from {schema}.failure where failure.job_id = sent.id and failure.claim = sent.claim)
