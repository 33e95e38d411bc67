-- list_pending: jobs that wait, newest first. Reads ready and scheduled whole.
select jobs.*
  from (select body.id
          from (select job_id from {schema}.ready union all select job_id from {schema}.scheduled) as waiting
          join {schema}.job as body on body.id = waiting.job_id
         where true
           and (%(queue)s::text is null or body.queue = (select id from {schema}.queue where name = %(queue)s))
           and (%(type)s::text is null or body.type = %(type)s)
         order by body.id desc limit %(limit)s) as picked
  join {schema}.jobs on jobs.id = picked.id
 order by jobs.id desc
