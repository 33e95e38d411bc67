-- doctor_types: the types of jobs that wait, and of how many jobs a worker has said within a day that it knows no such
-- type: among 10,000 that are due and 10,000 that are not (`more` of them may be), and the last thousand that have failed. index: the primary keys, done_dead, failure_job.
with sample as materialized (
    (select job_id, true as waits from {schema}.ready limit 10000)
    union all
    (select job_id, true from {schema}.scheduled limit 10000)
    union all
    (select job_id, false from {schema}.done where status = {fail} order by job_id desc limit 1000)
)
select body.type, count(*) filter (where waits) as waiting,
       (select count(*) from sample where waits) >= 10000 as more,
       count(*) filter (where last.error like 'UnknownJobType: %%' and last.at > now() - interval '1 day') as unknown
  from sample
 cross join lateral (select type from {schema}.job where job.id = sample.job_id offset 0) as body
  left join lateral (
           select at, error from {schema}.failure where failure.job_id = sample.job_id order by at desc limit 1
       ) as last on true
 group by body.type order by body.type
