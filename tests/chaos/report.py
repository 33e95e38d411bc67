"""How long everything took to recover, and the summary as a table. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from tests.chaos.ledger import Ledger
from tests.chaos.schedule import KINDS
from tests.chaos.verify import Evidence, Findings, Happened

__all__ = ["Line", "markdown", "merged", "recovery", "story", "summary", "told"]

PATIENCE: Final = 20.0
"""Seconds after which something counts as not recovered."""
HEADS: Final = (
    "fault",
    "injected",
    "recovered",
    "to recover, p50",
    "max",
    "jobs lost",
    "attempts charged",
    "started again",
)


@dataclass(slots=True)
class Line:
    """One kind of fault."""

    fault: str
    injected: int = 0
    recovered: int = 0
    seconds: list[float] = field(default_factory=list[float])
    lost: int = 0
    charged: int = 0
    again: int = 0

    def cells(self) -> list[str]:
        """Return it as words."""
        half, most = (f"{median(self.seconds):.2f} s", f"{max(self.seconds):.2f} s") if self.seconds else ("", "")
        counts = map(str, (self.lost, self.charged, self.again))
        return [self.fault, str(self.injected), str(self.recovered), half, most, *counts]


def recovery(fault: Happened, evidence: Evidence) -> float | None:
    """Return the seconds until everything went on; None if something did not within `PATIENCE`.

    Where a worker is struck: from that moment until the last of the jobs that it was running has started elsewhere, or
    has ended. Otherwise: from the moment when the cause is gone until every process that felt it has started a job
    again (a worker) or had an enqueue acknowledged (a producer). What another fault held up meanwhile is not measured.
    """
    taken = _taken_over if KINDS[fault.fault].place == "worker" else _gone_on
    seconds = max(taken(fault, evidence), default=0.0)
    return seconds if seconds < PATIENCE else None


def _taken_over(fault: Happened, evidence: Evidence) -> Iterator[float]:
    others = [other for other in evidence.faults if other is not fault and other.pids is None]
    for run in evidence.ledger.executions:
        if fault.touched(run.pid) and run.start < fault.at and (run.end is None or run.end > fault.at):
            later = [other.start for other in evidence.runs(run.job) if other.start > fault.at]
            done = evidence.tables.done.get(run.job)
            moment = min([*later, done.finished_at if done is not None else math.inf])
            if not any(other.at < moment and other.healed > fault.at for other in others):
                yield moment - fault.at


def _gone_on(fault: Happened, evidence: Evidence) -> Iterator[float]:
    others = [other for other in evidence.faults if other is not fault]
    for pid, moments in _activity(evidence.ledger).items():
        if not (fault.touched(pid) and moments[0] < fault.at and moments[-1] > fault.healed):
            continue
        moment = next(moment for moment in moments if moment > fault.healed)
        if not any(other.touched(pid) and other.at < moment and other.healed > fault.at for other in others):
            yield moment - fault.healed


def story(evidence: Evidence, job_id: str) -> Iterator[str]:
    """Tell all that is known of a job, line by line, in the order of time."""
    lines = [
        (call.at, f"{call.kind} enqueued as {call.number}")
        for call in evidence.ledger.calls
        if job_id in (call.ids or ())
    ]
    for run in evidence.runs(job_id):
        lines.append((run.start, f"attempt {run.attempt + 1} started as {run.run} by {run.worker}"))
        if run.end is not None:
            lines.append((run.end, f"{run.run} {run.how}"))
    for failure in evidence.tables.failures:
        if failure.job == job_id:
            said = failure.error.partition("\n")[0]
            lines.append((failure.at, f"attempt {failure.attempts} charged: {said}"))
    if (done := evidence.tables.done.get(job_id)) is not None:
        lines.append((done.finished_at, f"done with status {done.status} by {done.worker}"))
    first, last = min(lines)[0], max(lines)[0]
    for fault in evidence.faults:
        if fault.at < last and fault.healed > first - PATIENCE / 2:
            who = "everybody" if fault.pids is None else ", ".join(map(str, fault.pids))
            lines += [(fault.at, f"{fault.fault}: {who}"), (fault.healed, f"{fault.fault}: over")]
    for at, said in sorted(lines):
        yield f"{at - first:+8.3f} {said}"


def told(evidence: Evidence, findings: Findings) -> Iterator[str]:
    """Yield what was violated, each with the stories of the jobs that it names."""
    for violation in findings.violations:
        yield f"VIOLATION: {violation}"
        for job_id in re.findall(r"job ([0-9a-f-]{36})", violation):
            yield from (f"  {line}" for line in story(evidence, job_id))


def _activity(ledger: Ledger) -> dict[int, list[float]]:
    moments: dict[int, list[float]] = {pid: [] for pid in ledger.pids}
    for run in ledger.executions:
        moments[run.pid].append(run.start)
    for call in ledger.calls:
        if call.answered is not None:
            moments[call.pid].append(call.answered)
    return {pid: sorted(times) for pid, times in moments.items() if times}


def summary(evidence: Evidence, findings: Findings) -> list[Line]:
    """Return a line for each kind of fault that was made."""
    again = Counter(one.fault for one in findings.again)
    lines: dict[str, Line] = {}
    for fault in evidence.faults:
        line = lines.setdefault(fault.fault, Line(fault.fault))
        line.injected += 1
        seconds = recovery(fault, evidence)
        if seconds is not None:
            line.recovered += 1
            line.seconds += [seconds] if seconds else []  # 0: there was nothing to recover
        line.charged, line.again = findings.charged[fault.fault], again[fault.fault]
    answered = {i: call.answered or 0.0 for call in evidence.ledger.calls for i in call.ids or ()}
    for job_id in findings.lost:  # of the fault that came last before it was acknowledged, or first after
        near = min(evidence.faults, key=lambda fault: abs(fault.at - answered[job_id]), default=None)
        if near is not None:
            lines[near.fault].lost += 1
    return [lines[name] for name in KINDS if name in lines]


def merged(parts: Iterable[Iterable[Line]]) -> list[Line]:
    """Return the lines of several runs as one table's."""
    lines: dict[str, Line] = {}
    for part in parts:
        for one in part:
            line = lines.setdefault(one.fault, Line(one.fault))
            line.injected += one.injected
            line.recovered += one.recovered
            line.seconds += one.seconds
            line.lost += one.lost
            line.charged += one.charged
            line.again += one.again
    return [lines[name] for name in KINDS if name in lines]


def markdown(lines: Iterable[Line]) -> str:
    """Return a table in Markdown."""
    rows = [list(HEADS), ["---", *["---:"] * (len(HEADS) - 1)], *(line.cells() for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
