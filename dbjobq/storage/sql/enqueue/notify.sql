-- notify: wake the workers of a queue if any may be asleep, and this transaction may notify; see enqueue.sql.
select pg_notify({channel}, 'w' || id)
  from {schema}.queue
 where id = %(queue)s and (wanted or current_setting('transaction_isolation') <> 'read committed')
   and %(notify)s::bool
