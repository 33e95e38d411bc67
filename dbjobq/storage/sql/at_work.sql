-- at_work: whether the server is still busy with what another of our connections has sent, so that an answer will come.
-- Not if it tries to send it, and not if it waits for the rest. Where the server does not tell (track_activities = off), it
-- is taken to be.
select from pg_stat_activity
 where pid = %(pid)s::int and state in ('active', 'disabled')
   and coalesce(wait_event, '') not in ('ClientRead', 'ClientWrite')
