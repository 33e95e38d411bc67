"""The tables of the queue: an immutable body, and small rows that move.

Why: where a job stands is which small row it has (docs/decisions/0001): `ready`, `scheduled`, `lease` or `done`. A
step deletes one row and inserts another in one statement; the body, with the job's data, is written once.
Locks: none that anybody waits for; everything is new.
The previous release runs on it: there is none.
"""

from __future__ import annotations

from dbjobq.schema import apply

revision = "0001"
down_revision = None
compatible_from = "0001"

# Queue tables turn over completely: vacuum by count, not by a share of the table, and without pauses.
QUEUE_TABLE = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0"

UPGRADE = (
    # Alembic's own table, which it keeps when all is undone. In each migration's file there is what it is set to.
    "alter table {schema}.schema_version add column if not exists compatible_from varchar(32)",
    """
    create table {schema}.queue (
        id     int generated always as identity primary key,
        name   text not null unique,
        wanted bool not null default true  -- a worker may be asleep: whoever enqueues must notify
    ) with (fillfactor = 40)
    """,
    """
    create table {schema}.worker (
        id         int generated always as identity primary key,
        name       text not null,
        started_at timestamptz not null default clock_timestamp(),
        expires_at timestamptz not null  -- its leases hold until then
    ) with (fillfactor = 40)
    """,
    # Columns by descending alignment, the nullable ones where their absence costs nothing.
    # The checks keep out what no reader could make a job of; who may enqueue may write rows by hand.
    """
    create table {schema}.job (
        position    bigint not null default (date_part('epoch', clock_timestamp()) * 1000000)::bigint,
        created_at  timestamptz not null default now()  -- a volatile default would keep COPY from writing many at once
                    check (created_at between '1970-01-01 00:00Z' and '9999-01-01 00:00Z'),
        execute_at  timestamptz check (execute_at between '1970-01-01 00:00Z' and '9999-01-01 00:00Z'),
        timeout     float8 check (timeout > 0 and timeout < 'infinity'),
        queue       int not null,
        priority    int not null,
        max_retries int not null,
        id          uuid not null primary key,
        type        text not null check (octet_length(type) between 1 and 2000),
        unique_key  text,
        data        json not null  -- json, not jsonb: keeps NUL, lone surrogates and huge integers as they came
                    check (json_typeof(data) = 'object' and pg_column_size(data) <= 33554436)  -- 32 MiB and its header
    )
    """,
    # lz4 halves the cost of storing kilobytes; not every build of PostgreSQL has it.
    """
    do $$ begin
        alter table {schema}.job alter column data set compression lz4;
    exception when feature_not_supported then null;
    end $$
    """,
    """
    create table {schema}.ready (
        position bigint not null,  -- microseconds since 1970 when it became due: the order within a priority
        enqueued bigint,           -- its body's position, if it came here later: the order of those due together
        queue    int not null,
        priority int not null,
        attempts int not null default 0 check (attempts between 0 and 1000000000),  -- there is always one more
        job_id   uuid not null,
        suspect  bool not null default false  -- a worker died with it: perhaps of it (docs/decisions/0008)
    ) with ("""
    + QUEUE_TABLE
    + """)
    """,
    "create index ready_claim on {schema}.ready (queue, priority desc, position, enqueued)",
    "create index ready_moved on {schema}.ready (job_id) where enqueued is not null",
    """
    create table {schema}.scheduled (
        run_at   timestamptz not null check (run_at between '1970-01-01 00:00Z' and '9999-01-01 00:00Z'),
        enqueued bigint not null,
        queue    int not null,
        priority int not null,
        attempts int not null default 0 check (attempts between 0 and 1000000000),
        job_id   uuid not null primary key
    ) with ("""
    + QUEUE_TABLE
    + """)
    """,
    "create index scheduled_due on {schema}.scheduled (run_at, enqueued)",
    """
    create table {schema}.lease (
        claim      bigint not null,  -- drawn anew for each claim: the fence (docs/decisions/0002)
        claimed_at timestamptz not null,
        expires_at timestamptz,  -- null: as long as its worker lives
        worker     int not null,
        attempts   int not null,
        job_id     uuid not null primary key,
        suspect    bool not null default false,
        progress   json
    ) with (fillfactor = 90, """
    + QUEUE_TABLE
    + """)
    """,
    """
    create table {schema}.done (
        started_at  timestamptz,
        finished_at timestamptz not null default clock_timestamp(),
        claim       bigint,
        worker      int,
        attempts    int not null,
        status      smallint not null,  -- 2 completed, 3 failed, 4 cancelled
        job_id      uuid not null primary key,
        result      json
    )
    """,
    "create index done_dead on {schema}.done (status, job_id) where status in (3, 4)",
    """
    create table {schema}.failure (
        at       timestamptz not null default clock_timestamp(),
        claim    bigint,
        attempts int not null,
        job_id   uuid not null,
        error    text not null
    )
    """,
    "create index failure_job on {schema}.failure (job_id, at)",
    """
    create table {schema}.unique_key (
        key    text not null primary key,
        job_id uuid not null
    )
    """,
    "create sequence {schema}.claim",
    "insert into {schema}.queue (name) values ('default')",
    """
    create view {schema}.jobs as
    select body.id, body.type, body.data,
           case when done.job_id is not null then (array['completed', 'failed', 'cancelled'])[done.status - 1]
                when lease.job_id is not null then 'running'
                else 'pending' end as status,
           coalesce(queue.name, '(no queue ' || body.queue || ')') as queue, body.priority,
           coalesce(done.attempts, lease.attempts, scheduled.attempts, ready.attempts, 0) as attempts,
           body.max_retries,
           coalesce(scheduled.run_at, body.execute_at) as execute_at,
           body.created_at,
           greatest(body.created_at, done.finished_at, lease.claimed_at, last.at) as updated_at,
           coalesce(done.started_at, lease.claimed_at) as started_at,
           done.finished_at, last.error, done.result,
           worker.name as worker_id, body.timeout, body.unique_key, lease.progress
      from {schema}.job as body
      left join {schema}.queue on queue.id = body.queue
      left join {schema}.done on done.job_id = body.id
      left join {schema}.lease on lease.job_id = body.id
      left join {schema}.scheduled on scheduled.job_id = body.id
      left join {schema}.ready on ready.job_id = body.id and ready.enqueued is not null
      left join {schema}.worker on worker.id = coalesce(done.worker, lease.worker)
      left join lateral (
          select at, error from {schema}.failure where failure.job_id = body.id order by at desc limit 1
      ) as last on true
    """,
)

DOWNGRADE = (
    "drop view {schema}.jobs",
    "drop table {schema}.unique_key, {schema}.failure, {schema}.done, {schema}.lease, {schema}.scheduled, "
    "{schema}.ready, {schema}.job, {schema}.worker, {schema}.queue",
    "drop sequence {schema}.claim",
)


def upgrade() -> None:
    """Apply `UPGRADE`."""
    apply(UPGRADE)


def downgrade() -> None:
    """Apply `DOWNGRADE`."""
    apply(DOWNGRADE)
