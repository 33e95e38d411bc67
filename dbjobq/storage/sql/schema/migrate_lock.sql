-- migrate_lock: the second half of the right to migrate (migrate_turn.sql), until the transaction ends. It is in nobody's way
-- who reads the version or writes it.
lock table {schema}.schema_version in share update exclusive mode nowait
