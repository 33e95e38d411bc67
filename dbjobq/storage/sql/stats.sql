-- stats: how many jobs have which status. Counts whole tables: for people, not for loops.
select (select count(*) from {schema}.ready) + (select count(*) from {schema}.scheduled) as pending,
       (select count(*) from {schema}.lease) as running,
       count(*) filter (where status = 2) as completed,
       count(*) filter (where status = 3) as failed,
       count(*) filter (where status = 4) as cancelled
  from {schema}.done
