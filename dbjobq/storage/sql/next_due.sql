-- next_due: the seconds until the next scheduled job is due. index: scheduled_due, its first entry.
select date_part('epoch', min(run_at) - clock_timestamp()) from {schema}.scheduled
