-- stats: how many jobs have which status. Counts whole tables: for people, not for loops.
select (select count(*) from {schema}.ready) + (select count(*) from {schema}.scheduled) as pending,
       (select count(*) from {schema}.lease) as running,
       count(*) filter (where status = {complete}) as completed,
       count(*) filter (where status = {fail}) as failed,
       count(*) filter (where status = {cancel}) as cancelled
  from {schema}.done
