-- claimed: what is leased under the numbers of claims, as claim.sql returns it. Sent when a reply was lost, and only then.
-- index: none on lease, which is as small as what runs; job's primary key.
select lease.job_id::text, lease.claim::text, lease.attempts, body.type, body.data::text, %(queue)s::int, body.priority,
       body.max_retries, body.timeout, {ties}, body.position, date_part('epoch', body.created_at),
       date_part('epoch', body.execute_at), date_part('epoch', lease.claimed_at), lease.suspect, null
  from {schema}.lease, lateral (select * from {schema}.job where job.id = lease.job_id offset 0) as body
 where lease.claim = any (%(claims)s::bigint[])
