-- list_finished: jobs that have ended in one way, newest first. index: done's primary key, backwards, or done_dead.
select jobs.*
  from (select body.id
          from {schema}.done join {schema}.job as body on body.id = done.job_id
         where done.status = %(code)s
           and (%(queue)s::text is null or body.queue = (select id from {schema}.queue where name = %(queue)s))
           and (%(type)s::text is null or body.type = %(type)s)
         order by body.id desc limit %(limit)s) as picked
  join {schema}.jobs on jobs.id = picked.id
 order by jobs.id desc
