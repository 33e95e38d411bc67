"""The demo's report: figures and sentences at the end."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from dbjobq.demo.totals import Totals
from dbjobq.rig.percentile import percentile

__all__ = ["Kill", "Report"]

WIDTH: Final = 80
INDENT: Final = 12
"""Columns of the report, and of the names at the beginning of its lines."""


class Kill(NamedTuple):
    """The kill of a worker process, and the recovery of its jobs."""

    pid: int
    held: int
    recovered_after: float
    """Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The demo's figures; durations in seconds."""

    server: str
    workers: int
    by_queue: Totals
    without_queue: Totals
    lost: int
    seconds: float
    plain_seconds: float
    jobs_per_second: float
    """The rate until one worker was killed."""
    kill: Kill
    attempts_charged: int
    begun_twice: int
    ended_twice: int
    latencies: Sequence[float]

    @property
    def ok(self) -> bool:
        """Whether no job is lost, and the totals agree."""
        return self.lost == 0 and self.by_queue == self.without_queue

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        return {
            "ok": self.ok,
            "server": self.server,
            "workers": self.workers,
            "by_queue": self.by_queue._asdict(),
            "without_queue": self.without_queue._asdict(),
            "lost": self.lost,
            "seconds": round(self.seconds, 3),
            "plain_seconds": round(self.plain_seconds, 3),
            "jobs_per_second": round(self.jobs_per_second, 1),
            "kill": self.kill._asdict(),
            "attempts_charged": self.attempts_charged,
            "begun_twice": self.begun_twice,
            "ended_twice": self.ended_twice,
            "pickup_p50_ms": round(percentile(self.latencies, 50) * 1000, 2),
            "pickup_p99_ms": round(percentile(self.latencies, 99) * 1000, 2),
        }

    def lines(self) -> Iterator[str]:
        """Yield the report for people."""
        yield f"{'':<12}{'by the queue':>28}{'without it':>28}"
        for name, one, other in _compared(self.by_queue, self.without_queue):
            yield f"{name:<12}{one:>28}{other:>28}  {'=' if one == other else 'DIFFERS'}"
        yield ""
        yield from _told(
            "time",
            f"{self.seconds:.1f} s by {self.workers} workers; for {self.kill.recovered_after:.1f} s of it some jobs "
            "waited until the lease of the killed worker was over",
        )
        yield from _told("rate", f"{self.jobs_per_second:,.0f} jobs/s until the kill")
        if self.latencies:
            p50, p99 = (percentile(self.latencies, part) * 1000 for part in (50, 99))
            pings = f"{len(self.latencies)} jobs, enqueued one at a time while the workers slept"
            yield from _told("pick-up", f"{p50:.1f} ms (median), {p99:.1f} ms (p99) from enqueue to start: {pings}")
        yield from _told(
            "kill",
            f"the killed worker held {_jobs(self.kill.held)}; others ran them, and {self.attempts_charged} attempts "
            "are counted as failed for it",
        )
        yield from _told(
            "run again",
            f"{_jobs(self.begun_twice)} began twice, and {self.ended_twice} of them came to their end twice: a job "
            "runs at least once, and again if its worker dies before its result is written. Only one result is kept",
        )
        yield from _told("lost", f"{self.lost} jobs")
        yield ""
        yield "OK: nothing is lost, and all totals agree" if self.ok else "FAILED: see above"


def _told(name: str, text: str) -> list[str]:
    """Return a text behind a name as lines of 80 columns, folded between words: a terminal would break words."""
    return textwrap.wrap(f"{name:<{INDENT}}{text}", WIDTH, subsequent_indent=" " * INDENT, break_on_hyphens=False)


def _jobs(number: int) -> str:
    return f"{number} job{'s' * (number != 1)}"


def _compared(one: Totals, other: Totals) -> Iterator[tuple[str, str, str]]:
    for name in ("files", "size_bytes", "lines", "words"):
        yield name, f"{getattr(one, name):,}", f"{getattr(other, name):,}"
    yield "digest", one.digest[:16], other.digest[:16]
    for place in range(max(len(one.most_used), len(other.most_used))):
        yield f"word no. {place + 1}", _used(one, place), _used(other, place)


def _used(totals: Totals, place: int) -> str:
    if place >= len(totals.most_used):
        return "-"
    word, count = totals.most_used[place]
    return f"{word[:16]} {count:,}"
