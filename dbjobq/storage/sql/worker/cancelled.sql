-- cancelled: which of these jobs are cancelled; asked of those that a worker holds no more. index: done's primary key.
select job_id::text from {schema}.done where job_id = any (%(ids)s::uuid[]) and status = {cancel}
