"""The server's expense: bytes of WAL, and CPU time of its processes where they can be seen.

Where they cannot (the server is on another machine, in a container, or not on Linux), the time that statements of this
database took on the server stands in for it (`pg_stat_database.active_time`); the report says which of the two it is.
Both count everything that the server does, for others, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import psycopg

from dbjobq.bench.sample import Figures

__all__ = ["Meter", "Reading", "Slice", "together"]

FLUSHED: Final = 1.1
"""Seconds after which a backend reports what it did, with its next transaction."""
TICKS: Final = os.sysconf("SC_CLK_TCK")


class Reading(NamedTuple):
    """The expense up to a moment."""

    wal_bytes: int
    server_seconds: float | None

    def per_job(self, since: Reading, jobs: int) -> Figures:
        """Return the expense of each of `jobs` jobs since an earlier reading."""
        figures = {"wal_bytes": (self.wal_bytes - since.wal_bytes) / jobs}
        if self.server_seconds is not None and since.server_seconds is not None:
            figures["server_us"] = (self.server_seconds - since.server_seconds) / jobs * 1e6
        return figures


class Slice(NamedTuple):
    """The number of jobs in a measured time, and their expense."""

    jobs: int
    seconds: float
    before: Reading
    after: Reading


def together(slices: Sequence[Slice]) -> Figures:
    """Return the figures of several slices of the same kind."""
    jobs = sum(it.jobs for it in slices)
    spent = [it.after.per_job(it.before, jobs) for it in slices]
    return {
        "per_s": jobs / sum(it.seconds for it in slices),
        **{name: sum(figures[name] for figures in spent) for name in spent[0]},
    }


class Meter:
    """Reads the server's expense.

    Args:
        connection: The meter's own connection, in autocommit.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._postmaster = _postmaster(connection)

    @property
    def clock(self) -> Literal["cpu", "active"]:
        """Whether `server_seconds` counts CPU time, or the time in which statements were active."""
        return "active" if self._postmaster is None else "cpu"

    def slice(self, work: Callable[[], int], nudge: Callable[[], object] | None = None) -> Slice:
        """Do some work, and return its expense.

        Args:
            work: Does the work, and returns how many jobs it was.
            nudge: See `read`.
        """
        before, begun = self.read(nudge), time.perf_counter()
        jobs = work()
        seconds = time.perf_counter() - begun
        return Slice(jobs, seconds, before, self.read(nudge))

    def read(self, nudge: Callable[[], object] | None = None) -> Reading:
        """Return the expense so far.

        Args:
            nudge: Runs one more transaction on each connection that is measured: a backend reports its work with its
                next transaction. Not called where CPU time is read. Without it, CPU time or nothing is read.
        """
        active: float | None = None
        if self._postmaster is not None:
            active = _cpu_seconds(self._postmaster)
        elif nudge is not None:
            time.sleep(FLUSHED)
            nudge()
            ((active,),) = self._connection.execute(
                "select active_time / 1000 from pg_stat_database where datname = current_database()"
            )
        ((wal,),) = self._connection.execute("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')")
        return Reading(int(wal), active)


def _postmaster(connection: psycopg.Connection[Any]) -> int | None:
    """Return the server's first process, if it is on this machine and all of its processes can be seen."""
    backend = Path("/proc", str(connection.info.backend_pid))
    try:
        title = (backend / "cmdline").read_text(errors="replace")
        parent = int((backend / "stat").read_text().rpartition(")")[2].split()[1])
        _cpu_seconds(parent)
    except (OSError, ValueError):
        return None
    ours = title.startswith("postgres: ") and f" {connection.info.dbname} " in title
    return parent if ours else None


def _cpu_seconds(postmaster: int) -> float:
    """Return the CPU time of a server's processes, those that have ended included."""
    first = Path("/proc", str(postmaster))
    nanoseconds = 0
    for pid in (str(postmaster), *(first / "task" / str(postmaster) / "children").read_text().split()):
        try:
            nanoseconds += int(Path("/proc", pid, "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):  # the process has just ended, and counts among those
            continue
    ended = (first / "stat").read_text().rpartition(")")[2].split()[13:15]
    return nanoseconds / 1e9 + sum(map(int, ended)) / TICKS
