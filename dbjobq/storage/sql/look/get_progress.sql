-- get_progress: what a running job says of itself. index: lease's primary key.
select progress from {schema}.lease where job_id = %(id)s::uuid
