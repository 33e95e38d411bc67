-- begun: whether the version table has a row: its first migration, which alters that table, has been applied.
select exists (select from {schema}.schema_version)
