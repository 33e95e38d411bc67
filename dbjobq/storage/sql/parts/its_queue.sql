-- its_queue: the queue that a job is for, by the number that is remembered and the name that was meant.
select id, wanted or current_setting('transaction_isolation') <> 'read committed' as wake
      from {schema}.queue where id = %(queue)s::int and name = %(name)s::text
    union all
    select %(queue)s::int, true
     where %(sure)s::bool
       and not exists (select from {schema}.queue where id = %(queue)s::int and name = %(name)s::text)
