-- doctor_notify: how full the queue of notifications is, how many sessions listen to ours as far as this role can see,
-- and the oldest that sit in an open transaction: one that listens keeps all that was notified since.
select pg_notification_queue_usage() as usage,
       (select count(*) from pg_stat_activity
         where datname = current_database() and query = format('listen "%%s"', {channel})) as listeners,
       (select string_agg(format('pid %%s (%%s)', pid, coalesce(nullif(application_name, ''), usename)), ', ')
          from (select pid, application_name, usename from pg_stat_activity
                 where state like 'idle in transaction%%' order by xact_start limit 3) as idle) as idle
