"""Rows of `failure` that a publication can name.

Why: `failure` is the other table without a key (see 0002). dbjobq itself only adds to it; history is deleted by hand.
Locks: `failure`, from everybody, for a moment: the catalogue alone is written.
The previous release runs on it.
"""

from __future__ import annotations

from dbjobq.schema import apply

revision = "0003"
down_revision = "0002"
compatible_from = "0001"

UPGRADE = ("alter table {schema}.failure replica identity full",)

DOWNGRADE = ("alter table {schema}.failure replica identity default",)


def upgrade() -> None:
    """Apply `UPGRADE`."""
    apply(UPGRADE)


def downgrade() -> None:
    """Apply `DOWNGRADE`."""
    apply(DOWNGRADE)
