-- next_due: the seconds until the next scheduled job is due; the time, and the seconds this transaction has taken.
-- index: scheduled_due, its first entry. `since`: no look at what is due before that (claim_start.py); null: at everything.
select date_part('epoch', min(run_at) - clock_timestamp()), date_part('epoch', now()),
       date_part('epoch', clock_timestamp() - now())
  from {schema}.scheduled where run_at >= coalesce(to_timestamp(%(since)s::float8), '-infinity')
