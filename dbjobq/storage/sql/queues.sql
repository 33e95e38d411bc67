-- queues: every queue, in the order of their making. One small table, read whole.
select id, name from {schema}.queue order by id
