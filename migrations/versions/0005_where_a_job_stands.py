"""Whether a job stands elsewhere than in a place that may be forged.

Why: a claim asks it of places that were not written together with their body (docs/decisions/0013), which are none as a
rule. As a part of the claim's own statement the look-ups would be prepared each time, whether they are made or not: 20
to 45 microseconds for each claim. Has its caller's rights, and sees what the calling statement sees.
Locks: none; the function is new.
The previous release runs on it: it does not know the function.
"""

from __future__ import annotations

from dbjobq.schema import apply

revision = "0005"
down_revision = "0004"
compatible_from = "0001"

UPGRADE = (
    # Of a job, by its place: where that is in `ready` (null: it is in `scheduled`), its queue, priority and position.
    """
    create function {schema}.stands_elsewhere(uuid, tid, int, int, bigint)
        returns bool language plpgsql stable
        set search_path = pg_catalog, pg_temp
        set enable_seqscan = off
        set enable_bitmapscan = off
        set enable_hashjoin = off
        set enable_mergejoin = off
    as $$ begin
        return exists (select from {schema}.done where job_id = $1)
            or exists (select from {schema}.lease where job_id = $1)
            or $2 is not null and exists (select from {schema}.scheduled where job_id = $1)
            or exists (select from {schema}.ready where job_id = $1 and enqueued is not null)
            or exists (
                select from {schema}.job as body
                  join {schema}.ready as other
                    on other.queue = body.queue and other.priority = body.priority and other.position = body.position
                 where body.id = $1 and other.job_id = $1 and other.enqueued is null
                   and ($2 is null
                        or other.ctid <> $2
                           and (other.xmin = body.xmin or other.ctid < $2
                                or body.queue <> $3 or body.priority <> $4 or body.position <> $5)));
    end $$
    """,
)

DOWNGRADE = ("drop function {schema}.stands_elsewhere(uuid, tid, int, int, bigint)",)


def upgrade() -> None:
    """Apply `UPGRADE`."""
    apply(UPGRADE)


def downgrade() -> None:
    """Apply `DOWNGRADE`."""
    apply(DOWNGRADE)
