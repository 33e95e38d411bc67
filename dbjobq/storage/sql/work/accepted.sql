-- accepted: which of these results the table already has, by id, claim and event. A result that is sent again after its
-- reply was lost finds its lease gone: here it is told from one that came too late, also after another that was written
-- in its place (loop_watch.py).
-- index: done's primary key, failure_job.
select sent.id::text
  from unnest(%(ids)s::uuid[], %(claims)s::bigint[], %(events)s::smallint[]) as sent (id, claim, event)
 where case event
            when {retry} then exists (select from {schema}.failure where failure.job_id = sent.id and failure.claim = sent.claim)
            else exists (select from {schema}.done
                          where done.job_id = sent.id and done.claim = sent.claim and done.status = event)
       end
