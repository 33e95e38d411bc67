-- doctor_orphans: rows that belong to nothing: up to 10,000 of each table are looked at.
-- index: the primary keys, one look-up each.
with placed as materialized (
    (select 'ready' as place, job_id from {schema}.ready limit 10000)
    union all
    (select 'scheduled', job_id from {schema}.scheduled limit 10000)
    union all
    (select 'lease', job_id from {schema}.lease limit 10000)
), keyed as materialized (
    select job_id from {schema}.unique_key limit 10000
), orphaned as (
    select 'rows of ' || place || ' whose job is gone' as what, job_id
      from placed left join lateral (select id from {schema}.job where job.id = placed.job_id offset 0) as body on true
     where body.id is null
    union all
    select 'unique keys whose job has ended or is gone', keyed.job_id
      from keyed
      left join lateral (select id from {schema}.job where job.id = keyed.job_id offset 0) as body on true
      left join lateral (select job_id from {schema}.done where done.job_id = keyed.job_id offset 0) as ended on true
     where body.id is null or ended.job_id is not null
    union all
    select 'leases whose worker is not known', lease.job_id
      from (select * from {schema}.lease limit 100000) as lease left join {schema}.worker on worker.id = lease.worker
     where lease.expires_at is null and worker.id is null
)
select what, count(*) as rows, min(job_id::text) as example from orphaned group by what order by what
