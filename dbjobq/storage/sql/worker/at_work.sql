-- at_work: whether the server is still busy with what another of our connections has sent, so that an answer will come.
-- Not if it tries to send it, and not if it has waited for the rest for long. Where the server does not tell
-- (track_activities = off), it is taken to be.
select from pg_stat_activity
 where pid = %(pid)s::int and state in ('active', 'disabled')
   and wait_event is distinct from 'ClientWrite'
   and (wait_event is distinct from 'ClientRead' or state = 'disabled'
        or state_change > clock_timestamp() - %(rest)s::float8 * interval '1 second')
