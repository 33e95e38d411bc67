"""Checks of the tables: who keeps their dead rows, how many there are, whether they are vacuumed; the indexes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dbjobq.doctor.findings import Finding, Rows, Severity, plural, span

__all__ = [
    "INDEXES",
    "judge_autovacuum",
    "judge_bloat",
    "judge_dead_rows",
    "judge_horizon",
    "judge_indexes",
    "judge_publications",
]

HELD: Final = 300.0
"""Seconds that a transaction may be open. At a thousand jobs a second it keeps 300,000 dead rows in `ready` alone."""
HELD_LONG: Final = 3600.0
"""Seconds after which an open transaction is critical: it will not end soon by itself."""
HORIZON_BEHIND: Final = 1_000_000
"""Transactions by which a slot, a standby, or a transaction of unknown age may be behind: minutes under load."""
HORIZON_FAR_BEHIND: Final = 50_000_000
"""Transactions behind that are critical: a quarter of autovacuum_freeze_max_age, where the server defends itself."""
DEAD: Final = 50_000
"""Dead rows of a hot table that are too many: ten times autovacuum's threshold, so it does not run or cannot remove
them."""
UNVACUUMED: Final = 600.0
"""Seconds by which autovacuum may be late: ten of its rounds."""
ROW_BYTES: Final = 2_000
"""Bytes of a hot table and its indexes for each row that are too many; some 250 are needed."""
BLOAT: Final = 64 * 1024 * 1024
"""Bytes that a hot table may have however few rows it holds: a short peak leaves them behind, and claims do not read
them."""

HOT: Final = frozenset({"lease", "queue", "ready", "scheduled", "unique_key", "worker"})
"""Tables whose rows come and go. The other tables grow, or lose rows when history is deleted."""

INDEXES: Final = frozenset(
    {
        "done_dead",
        "done_pkey",
        "failure_job",
        "job_pkey",
        "lease_pkey",
        "queue_name_key",
        "queue_pkey",
        "ready_claim",
        "ready_moved",
        "scheduled_due",
        "scheduled_pkey",
        "schema_version_pkc",
        "unique_key_pkey",
        "worker_pkey",
    }
)
"""The indexes that the migrations make (a test compares)."""


_HOLDERS: Final = {
    "transaction": "a transaction of pid {}",
    "prepared": "the prepared transaction {!r}",
    "slot": "the replication slot {!r}",
    "standby": "the standby {}",
}
_RELEASE: Final = {
    "transaction": "find out why it is open, or end it: select pg_terminate_backend({}); against forgotten ones set "
    "idle_in_transaction_session_timeout",
    "prepared": "in its database: commit prepared {!r}, or rollback prepared",
    "slot": "let its consumer catch up, or, if there is none any more: select pg_drop_replication_slot({!r})",
    "standby": "end the long queries there, or set hot_standby_feedback = off on it",
}


def judge_horizon(rows: Rows) -> list[Finding]:
    """Judge who keeps dead rows from being removed: the five holders that are furthest behind."""
    return [
        Finding("horizon", severity, _holder(row), _RELEASE[row["kind"]].format(row["name"]))
        for row in rows
        if (severity := _held(row["seconds"], row["behind"])) is not None
    ][:5]


def _held(seconds: float | None, behind: int) -> Severity | None:
    long = behind > HORIZON_BEHIND if seconds is None else seconds > HELD
    far = behind > HORIZON_FAR_BEHIND if seconds is None else seconds > HELD_LONG
    return "critical" if far else "warning" if long else None


def _holder(row: Mapping[str, Any]) -> str:
    known = [_HOLDERS[row["kind"]].format(row["name"])]
    known += [f"{what} {row[what]!r}" for what in ("role", "application") if row[what]]
    known += [row["state"]] if row["state"] else []
    known += [f"open for {span(row['seconds'])}"] if row["seconds"] is not None else []
    return f"{', '.join(known)}: keeps dead rows from being removed, {plural(row['behind'], 'transaction')} back"


def judge_dead_rows(rows: Rows) -> list[Finding]:
    """Judge how many dead rows the hot tables have."""
    return [
        Finding(
            "dead rows",
            "warning",
            f"{row['name']} has {row['dead']:,} dead rows and {row['rows']:,} live ones",
            "see `horizon` for who keeps them, and `autovacuum`; then vacuum it",
        )
        for row in rows
        if row["name"] in HOT and row["dead"] > DEAD
    ]


def judge_autovacuum(rows: Rows) -> list[Finding]:
    """Judge whether autovacuum comes when it is due."""
    found: list[Finding] = []
    for row in rows:
        name, ago = row["name"], row["vacuumed"]
        if not row["autovacuum"]:
            advice = f"alter table … {name} reset (autovacuum_enabled)"
            found.append(Finding("autovacuum", "warning", f"autovacuum is off for {name}", advice))
        elif row["dead"] > 2 * row["due"] and (ago is None or ago > UNVACUUMED):
            last = "was never seen there" if ago is None else f"came last {span(ago)} ago"
            late = f"{name} has {row['dead']:,} dead rows: autovacuum is due at {row['due']:,.0f}, and {last}"
            advice = "is it on? Raise autovacuum_max_workers, lower autovacuum_naptime and autovacuum_vacuum_cost_delay"
            found.append(Finding("autovacuum", "warning", late, advice))
    return found


def judge_bloat(rows: Rows) -> list[Finding]:
    """Judge whether the hot tables are much larger than what is in them."""
    return [
        Finding(
            "bloat",
            "notice",
            f"{row['name']} and its indexes take {row['bytes'] / 1e6:,.0f} MB for {plural(row['rows'], 'row')}",
            "once its dead rows can be removed: vacuum it and reindex table concurrently; vacuum full locks it",
        )
        for row in rows
        if row["name"] in HOT and row["bytes"] > max(BLOAT, ROW_BYTES * row["rows"])
    ]


def judge_indexes(rows: Rows) -> list[Finding]:
    """Judge whether all indexes are there and can be used."""
    invalid = {row["name"]: row["table"] for row in rows if not row["valid"]}
    missing = INDEXES - {row["name"] for row in rows}
    found = [
        Finding(
            "indexes",
            "critical" if name in INDEXES else "warning",
            f"index {name} of {table} is invalid: it costs writes and serves no search",
            f"reindex index concurrently {name}" if name in INDEXES else f"a reindex left it behind: drop index {name}",
        )
        for name, table in sorted(invalid.items())
    ]
    return found + [
        Finding("indexes", "critical", f"index {name} is missing", "make it again: `dbjobq migrate --sql` prints how")
        for name in sorted(missing)
    ]


def judge_publications(rows: Rows) -> list[Finding]:
    """Judge which publications include dbjobq's tables, and where one makes the server refuse updates and deletes."""
    found: list[Finding] = []
    for row in rows:
        which = f"publication {row['name']!r}" + (" (for all tables)" if row["everything"] else "")
        out = "publish your own schemas instead: create publication … for tables in schema …"
        if row["nameless"]:
            refused = (
                f"{which} includes {', '.join(row['nameless'])}: without a replica identity nothing is deleted there"
            )
            advice = f"alter table … replica identity full, or {out}"
            found.append(Finding("publications", "critical", f"{refused}, so that jobs stand still", advice))
        else:
            sent = f"{which} includes {plural(row['tables'], 'table')} of dbjobq: all that becomes of each job is sent"
            found.append(Finding("publications", "notice", sent, out))
    return found
