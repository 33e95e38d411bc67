-- listed: jobs by their ids, in that order. In three forms (statements.py): whole; as many as have `bytes` of arguments and
-- results together, and at least one; without arguments and results, and with an error's first words.
-- index: the primary keys. `lateral (… offset 0)`: one look-up for each, whatever the planner thinks of the tables.
select id, type, {data} as data, status, queue, priority, attempts, max_retries, execute_at, created_at, updated_at,
       started_at, finished_at, {error} as error, {result} as result, worker_id
  from (select listed.*, picked.nth{before}
          from unnest(%(ids)s::uuid[]) with ordinality as picked (id, nth),
               lateral (select * from {schema}.jobs where jobs.id = picked.id offset 0) as listed) as sized
{cut} order by nth
