-- queues: numbers and names of queues. Sent in three forms (statements.py): the first so many in the order of their making,
-- and those of some names or numbers. index: queue's primary key, or its unique name.
select id, name from {schema}.queue {which}
