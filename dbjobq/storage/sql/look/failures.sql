-- failures: how a job's last attempts failed, newest first. index: failure_job.
select nullif(attempts, 0) as attempt, at, left(error, 100000) as error
  from {schema}.failure where job_id = %(id)s::uuid order by at desc limit %(limit)s
