-- list_running: jobs that run now, newest first. Reads the lease table whole.
select jobs.*
  from (select body.id
          from {schema}.lease join {schema}.job as body on body.id = lease.job_id
         where true
           and (%(queue)s::text is null or body.queue = (select id from {schema}.queue where name = %(queue)s))
           and (%(type)s::text is null or body.type = %(type)s)
         order by body.id desc limit %(limit)s) as picked
  join {schema}.jobs on jobs.id = picked.id
 order by jobs.id desc
