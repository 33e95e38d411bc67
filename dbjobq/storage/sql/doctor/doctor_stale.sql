-- doctor_stale: leases that are over and that nobody has taken back, by their holder; see rescue.sql. 100,000 are
-- looked at.
select worker.name, count(*) as jobs,
       max(date_part('epoch', clock_timestamp() - coalesce(lease.expires_at, worker.expires_at))) as seconds
  from (select worker, expires_at from {schema}.lease limit 100000) as lease join {schema}.worker on worker.id = lease.worker
 where coalesce(lease.expires_at, worker.expires_at) < clock_timestamp()
 group by worker.name order by worker.name
