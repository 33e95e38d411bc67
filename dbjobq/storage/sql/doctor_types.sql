-- doctor_types: the types of jobs that wait, and of how many jobs a worker has said within a day that it knows no such
-- type: among those that wait, and the last thousand that have failed. index: the primary keys, done_dead, failure_job.
with sample as materialized (
    (select job_id, true as waits from {schema}.ready limit 100000)
    union all
    (select job_id, true from {schema}.scheduled limit 100000)
    union all
    (select job_id, false from {schema}.done where status = 3 order by job_id desc limit 1000)
)
select body.type, count(*) filter (where waits) as waiting,
       count(*) filter (where last.error like 'UnknownJobType: %%' and last.at > now() - interval '1 day') as unknown
  from sample
 cross join lateral (select type from {schema}.job where job.id = sample.job_id offset 0) as body
  left join lateral (
           select at, error from {schema}.failure where failure.job_id = sample.job_id order by at desc limit 1
       ) as last on true
 group by body.type order by body.type
