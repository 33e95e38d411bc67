"""Rows of `ready` that a publication can name.

Why: `ready` has no key, and where a publication includes it (`for all tables`, say), PostgreSQL refuses each delete
from a table without a replica identity: nothing could be claimed any more. The whole row as its identity costs
nothing unless `wal_level` is `logical`, and less than a key, which would be one more index for each job to write.
Locks: `ready`, from everybody, for a moment: the catalogue alone is written.
The previous release runs on it.
"""

from __future__ import annotations

from dbjobq.schema import apply

revision = "0002"
down_revision = "0001"
compatible_from = "0001"

UPGRADE = ("alter table {schema}.ready replica identity full",)

DOWNGRADE = ("alter table {schema}.ready replica identity default",)


def upgrade() -> None:
    """Apply `UPGRADE`."""
    apply(UPGRADE)


def downgrade() -> None:
    """Apply `DOWNGRADE`."""
    apply(DOWNGRADE)
