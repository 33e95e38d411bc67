-- list_all: jobs of any status, newest first. index: job's primary key, backwards.
select jobs.*
  from (select body.id
          from {schema}.job as body
         where true
           and (%(queue)s::text is null or body.queue = (select id from {schema}.queue where name = %(queue)s))
           and (%(type)s::text is null or body.type = %(type)s)
         order by body.id desc limit %(limit)s) as picked
  join {schema}.jobs on jobs.id = picked.id
 order by jobs.id desc
