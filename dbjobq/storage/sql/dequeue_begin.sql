-- dequeue_begin: the seconds until the next scheduled job is due; and the number of the claim that will be made. It is known
-- before the claim is sent, so that a call whose reply was lost finds what it claimed (claimed.sql).
-- index: scheduled_due, its first entry.
select (select date_part('epoch', min(run_at) - clock_timestamp()) from {schema}.scheduled), {number}
