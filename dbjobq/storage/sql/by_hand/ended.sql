-- ended: does this job exist, and when has it failed or been cancelled, in microseconds since 1970; null: it has not.
-- index: job's and done's primary keys.
select exists (select from {schema}.job where id = %(id)s::uuid),
       (select (date_part('epoch', finished_at) * 1000000)::bigint
          from {schema}.done where job_id = %(id)s::uuid and status in ({fail}, {cancel}))
