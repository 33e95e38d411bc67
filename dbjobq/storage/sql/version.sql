-- version: which migration this schema has; no row where none was ever applied.
select version_num from {schema}.schema_version
