-- get_job: one job, from wherever it stands. index: the primary keys.
select * from {schema}.jobs where id = %(id)s::uuid
