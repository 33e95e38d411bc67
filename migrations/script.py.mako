"""${message}.

Why: …
Locks: …
The previous release runs on it: …
"""

from __future__ import annotations

from dbjobq.schema import apply

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}

UPGRADE = ("",)
DOWNGRADE = ("",)


def upgrade() -> None:
    """Apply `UPGRADE`."""
    apply(UPGRADE)


def downgrade() -> None:
    """Apply `DOWNGRADE`."""
    apply(DOWNGRADE)
