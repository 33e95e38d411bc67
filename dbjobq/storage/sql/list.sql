-- list: jobs, newest first; in four forms (statements.py): all, pending, running, finished.
-- index: job's or done's primary key, backwards, or done_dead. Those that wait or run are read whole: for people.
select jobs.*
  from (select body.id
          from {members}
         where (%(queue)s::text is null or body.queue = (select id from {schema}.queue where name = %(queue)s))
           and (%(type)s::text is null or body.type = %(type)s){condition}
         order by body.id desc limit %(limit)s) as picked
  join {schema}.jobs on jobs.id = picked.id
 order by jobs.id desc
