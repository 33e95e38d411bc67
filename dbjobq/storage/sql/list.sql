-- list: jobs, newest first; in a form for each status, and one for all (statements.py).
-- `lateral (… offset 0)`: one look-up for each that is picked, whatever the planner thinks of the tables.
-- index: job's or done's primary key, backwards, or done_dead. Those that wait or run are read whole: for people.
select listed.id, listed.type, listed.data, listed.status, listed.queue, listed.priority, listed.attempts,
       listed.max_retries, listed.execute_at, listed.created_at, listed.updated_at, listed.started_at, listed.finished_at,
       listed.error, listed.result, listed.worker_id
  from (select {key} as id
          from {members}
         where (%(queue)s::text is null or body.queue = (select id from {schema}.queue where name = %(queue)s))
           and (%(type)s::text is null or body.type = %(type)s){condition}
         order by {key} desc limit %(limit)s) as picked,
       lateral (select * from {schema}.jobs where jobs.id = picked.id offset 0) as listed
 order by listed.id desc
