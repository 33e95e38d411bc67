-- version: which migration this schema has, and the oldest library that runs on it, by its newest migration; no row where
-- none was ever applied.
select version_num, compatible_from from {schema}.schema_version
