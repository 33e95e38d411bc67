-- dequeue_begin: what a claim by hand needs to know: the seconds until the next scheduled job is due; the number of the claim that
-- will be made, known before that is sent, so that a call whose reply was lost finds what it claimed (claimed.sql); the
-- queue's number (null: there is none of that name); whether number and name of who asks are still its own.
-- index: scheduled_due, its first entry; queue's unique name; worker's primary key.
select (select date_part('epoch', min(run_at) - clock_timestamp()) from {schema}.scheduled), {number},
       (select id from {schema}.queue where name = %(queue)s::text),
       exists (select from {schema}.worker where id = %(worker)s::int and name = %(name)s::text)
