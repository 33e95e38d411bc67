-- tidy: jobs that stand in several places are left in one: where they ended, else where they run, else where they wait.
-- Only rows written by hand can have put them there (docs/security.md). Sent when one was in a statement's way: it reads the
-- places whole, which no other statement does.
-- index: the primary keys. locks: the rows that go.
with again as materialized (
    select place.ctid as tid, job_id,
           row_number() over (partition by job_id
                              order by enqueued is null, place.xmin is distinct from body.written, place.position, place.ctid) > 1
               as more
      from {schema}.ready as place
      left join lateral (select xmin as written from {schema}.job where job.id = place.job_id offset 0) as body on true
), ended as (
    delete from {schema}.lease where exists (select from {schema}.done where done.job_id = lease.job_id)
    returning job_id
), waiting as (
    delete from {schema}.ready
     where ctid = any (array (
               select tid from again
                where more or exists (select from {schema}.lease where lease.job_id = again.job_id)
                   or exists (select from {schema}.done where done.job_id = again.job_id)))
    returning job_id
), later as (
    delete from {schema}.scheduled
     where job_id in (select job_id from again)
        or exists (select from {schema}.lease where lease.job_id = scheduled.job_id)
        or exists (select from {schema}.done where done.job_id = scheduled.job_id)
    returning job_id
)
select (select count(*) from ended) + (select count(*) from waiting) + (select count(*) from later)
