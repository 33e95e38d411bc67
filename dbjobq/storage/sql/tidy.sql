-- tidy: jobs that stand in several places are left in one: where they ended, else where they run, else where they wait.
-- Only rows written by hand can have put them there (docs/security.md). Sent when one was in a statement's way: it reads the
-- places whole, which no other statement does.
-- index: the primary keys. locks: the rows that go.
with again as materialized (
    select ctid as tid, job_id, row_number() over (partition by job_id order by position, ctid) > 1 as more from {schema}.ready
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
