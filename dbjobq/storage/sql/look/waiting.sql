-- waiting: how many jobs wait, counted to 10,000 of those that are due and of those that are not: so many can be sorted.
select (select count(*) from (select from {schema}.ready limit 10000) as due)
     + (select count(*) from (select from {schema}.scheduled limit 10000) as later)
