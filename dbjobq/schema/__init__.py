"""The tables: migrations and the locks they wait for, the version, roles.

A service that runs migrations itself uses `migrate`, `migration_sql` and `check`; a migration uses `apply`.
"""

from dbjobq.schema.migrations import (
    HEAD,
    VERSION_TABLE,
    Applied,
    apply,
    check,
    leads_back,
    migrate,
    migration_sql,
    migrations_dir,
    offline_sql,
    preamble,
    record_compatibility,
    revision,
    turn_to_migrate,
)

__all__ = [
    "HEAD",
    "VERSION_TABLE",
    "Applied",
    "apply",
    "check",
    "leads_back",
    "migrate",
    "migration_sql",
    "migrations_dir",
    "offline_sql",
    "preamble",
    "record_compatibility",
    "revision",
    "turn_to_migrate",
]
