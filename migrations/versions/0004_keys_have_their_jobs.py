"""A unique key that a job holds, and no other.

Why: who may enqueue may insert rows into `unique_key`, and could write one of a job that is not there or has ended: an
enqueue with that key would then return its id for ever, and store nothing. A key is now refused unless its job is
there, has that key and has not ended. It costs two look-ups for each enqueue with a unique key, and others nothing.
Locks: `unique_key`, from those who write it, for a moment: the catalogue alone is written.
The previous release runs on it: its statements write a key together with its job.
"""

from __future__ import annotations

from dbjobq.schema import apply

revision = "0004"
down_revision = "0003"
compatible_from = "0001"

UPGRADE = (
    # With its owner's rights: a producer may not read what it looks at.
    """
    create function {schema}.key_has_its_job() returns trigger language plpgsql security definer
        set search_path = pg_catalog, pg_temp
        set enable_seqscan = off
        set enable_bitmapscan = off
    as $$ begin
        if not exists (select from {schema}.job where id = new.job_id and unique_key = new.key)
           or exists (select from {schema}.done where job_id = new.job_id) then
            raise exception using errcode = 'check_violation',
                message = 'a unique key is held by a job that is there, has this key and has not ended';
        end if;
        return null;
    end $$
    """,
    """
    create trigger key_has_its_job after insert on {schema}.unique_key
        for each row execute function {schema}.key_has_its_job()
    """,
)

DOWNGRADE = (
    "drop trigger key_has_its_job on {schema}.unique_key",
    "drop function {schema}.key_has_its_job()",
)


def upgrade() -> None:
    """Apply `UPGRADE`."""
    apply(UPGRADE)


def downgrade() -> None:
    """Apply `DOWNGRADE`."""
    apply(DOWNGRADE)
