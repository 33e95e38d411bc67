"""Checks of the server: its version and role, how full it is, its settings, its notifications and who hears them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from dbjobq.doctor.findings import Finding, Rows, Severity

__all__ = ["judge_notifications", "judge_server", "judge_settings", "judge_ways"]

OLDEST: Final = 150000
"""PostgreSQL 15, the oldest that dbjobq is tested on."""
CROWDED: Final = 0.8
"""The share of `max_connections` beyond which a deployment, which doubles the workers for a moment, may be refused."""
FILLING: Final = 0.05
"""The share of the notification queue that is worth a word. The queue (8 GB as a rule) is empty unless a listener does
not read."""
FULL: Final = 0.5
"""The share of the notification queue at which the server itself warns. When the queue is full, transactions that
notify fail at their commit."""


def judge_server(rows: Rows) -> list[Finding]:
    """Judge the server's version, its role (primary or standby), its connections, and this role's rights."""
    ((server),) = rows
    found: list[Finding] = []
    if server["number"] < OLDEST:
        found.append(
            Finding(
                "server", "critical", f"this is PostgreSQL {server['version']}", "upgrade it: dbjobq needs 15 or later"
            )
        )
    if server["standby"] or server["read_only"]:
        what = "a standby" if server["standby"] else "read-only (default_transaction_read_only)"
        advice = "point the DSN at the primary (target_session_attrs=read-write with several hosts)"
        found.append(Finding("server", "critical", f"the server is {what}: no job can be written or claimed", advice))
    if server["connections"] > CROWDED * server["room"]:
        taken = f"{server['connections']} of max_connections={server['room']} are taken"
        advice = "use PgBouncer for what needs no LISTEN, fewer processes, or raise max_connections"
        found.append(Finding("server", "warning", taken, advice))
    if not server["sees_all"]:
        hidden = f"role {server['role']} does not see for how long others' transactions are open, nor who listens"
        advice = f"grant pg_monitor to {server['role']}, or run this as a role that has it"
        found.append(Finding("rights", "notice", hidden, advice))
    return found or [Finding("server", "ok", f"PostgreSQL {server['version']}")]


class _Rule(NamedTuple):
    """A setting that should be changed if `bad` is true of it."""

    bad: Callable[[str], bool]
    severity: Severity
    why: str
    advice: str


def _is(bad: str) -> Callable[[str], bool]:
    return lambda value: value == bad


def _is_not(good: str) -> Callable[[str], bool]:
    return lambda value: value != good


def _seldom(value: str) -> bool:
    return not 0 < int(value) <= 600  # 0 is the system's default: two hours


_RULES: Final[Mapping[str, _Rule]] = {
    "fsync": _Rule(_is("off"), "critical", "a crash of the machine destroys the database", "turn it on"),
    "full_page_writes": _Rule(_is("off"), "critical", "a crash of the machine can destroy pages", "turn it on"),
    "synchronous_commit": _Rule(
        _is("off"),
        "notice",
        "acknowledged jobs may be lost in a crash, if a storage has durable=False or rows are written by hand",
        "turn it on, at least for the roles that do so",
    ),
    "autovacuum": _Rule(_is("off"), "warning", "dead rows of queues pile up within minutes", "turn it on"),
    "track_counts": _Rule(_is("off"), "warning", "autovacuum cannot tell where it is needed", "turn it on"),
    "default_transaction_isolation": _Rule(
        _is_not("read committed"),
        "warning",
        "claims that meet fail instead of passing each other by, and every enqueue notifies",
        "alter role … set default_transaction_isolation = 'read committed' for the workers' role",
    ),
    "server_encoding": _Rule(
        _is_not("UTF8"),
        "notice",
        "names with letters that it lacks are refused, and such letters in errors become escapes",
        "make databases with encoding 'UTF8'",
    ),
    "idle_in_transaction_session_timeout": _Rule(
        _is("0"), "notice", "a forgotten transaction keeps dead rows, and locks, for ever", "set it to some minutes"
    ),
    "client_connection_check_interval": _Rule(
        _is("0"), "notice", "a query goes on, and keeps its locks, when its client is gone", "set it to 2s"
    ),
    "tcp_keepalives_idle": _Rule(
        _seldom,
        "notice",
        "the sessions of a machine that vanished keep their locks for up to two hours",
        "set it to 10, tcp_keepalives_interval to 5, tcp_keepalives_count to 3 and tcp_user_timeout to 15s",
    ),
}


def judge_settings(rows: Rows) -> list[Finding]:
    """Judge the server's settings, as a new session of this role gets them."""
    values: dict[str, str] = {row["name"]: row["value"] for row in rows}
    return [
        Finding("settings", rule.severity, f"{name} = {values[name]}: {rule.why}", rule.advice)
        for name, rule in _RULES.items()
        if name in values and rule.bad(values[name])
    ]


def judge_notifications(rows: Rows) -> list[Finding]:
    """Judge how full the queue of notifications is."""
    ((queue),) = rows
    if queue["usage"] <= FILLING:
        return [Finding("notifications", "ok", f"{queue['listeners']} sessions are seen to listen")]
    found = f"the notification queue is {queue['usage']:.0%} full: a session that listens has a transaction open"
    whom = f", such as {queue['idle']}" if queue["idle"] else ""
    advice = f"end the transactions that are open for long{whom}; when it is full, enqueues fail at their commit"
    return [Finding("notifications", "critical" if queue["usage"] >= FULL else "warning", found, advice)]


def judge_ways(*, pooler: bool, told: bool, hears: bool) -> list[Finding]:
    """Judge the ways to the server: is there a pooler, is dbjobq told of it, are workers woken?"""
    leads = "the DSN leads through a pooler" if pooler else "the DSN leads to the server itself"
    direct = "give --listen-dsn (DBJOBQ_LISTEN_DSN, listen_conninfo=) a direct DSN of the same database"
    if pooler and not told:
        found = f"{leads}, but no direct DSN is given: workers do not start"
        return [
            Finding("pooler", "critical", found, f"{direct}; or give the pooler's there, too: workers only poll then")
        ]
    if hears:
        return [Finding("pooler", "ok", f"{leads}, and notifications arrive where workers listen")]
    found = f"{leads}, but notifications do not arrive where workers listen, so they only poll"
    return [Finding("pooler", "warning", found, direct)]
