"""${message}.

Why: …
Locks: …
The previous release runs on it: …
"""

from __future__ import annotations

from dbjobq.schema import apply

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
compatible_from = ${repr(up_revision)}  # the oldest library that runs on these tables: see docs/migrations.md

UPGRADE = ("",)
DOWNGRADE = ("",)


def upgrade() -> None:
    """Apply `UPGRADE`."""
    apply(UPGRADE)


def downgrade() -> None:
    """Apply `DOWNGRADE`."""
    apply(DOWNGRADE)
