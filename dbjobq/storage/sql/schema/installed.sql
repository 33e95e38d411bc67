-- installed: whether there is a version table that this role may write, so that it can lock it (migrate_lock.sql).
select coalesce(has_table_privilege(to_regclass({version_table}), 'update'), false)
