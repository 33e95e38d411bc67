"""What was promised against what was: the ledger, the tables, and the faults that may excuse something. Pure.

What each rule finds is a sentence; none means that every promise was kept. What happened twice is told one by one, each
with the fault that made it so; what no fault explains is a violation, too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple, TypeVar

from tests.chaos.ledger import Call, Execution, Ledger
from tests.chaos.schedule import KINDS, Excuse
from tests.chaos.tables import Failure, Refusal, Tables

__all__ = ["Evidence", "Findings", "Happened", "verify"]

K = TypeVar("K")
V = TypeVar("V")

COMPLETED: Final = 2
FAILED: Final = 3
RETURNING: Final = {"chaos.short", "chaos.nap", "chaos.flaky", "chaos.once", "chaos.aeffect"}
"""Their result is the name of the run that returned it."""
EFFECTS: Final = {"chaos.effect", "chaos.aeffect"}
LOST: Final = re.compile(r"WorkerLost: worker \S+:(\d+):\S+ stopped")
UNWRITTEN: Final = 2.0
"""Seconds for which a result may wait to be written when the fault comes."""
LIFE: Final = 0.5
"""The share of its lease that a worker surely has left when the server goes away."""
UNFLUSHED: Final = 0.6
"""Seconds of heartbeats that a crash may take back: three times PostgreSQL's `wal_writer_delay`."""
RECONNECT: Final = 1.0
"""Seconds that a worker may need to find a server that is back."""


class Happened(NamedTuple):
    """A fault that was made; times in seconds since 1970."""

    fault: str
    at: float
    healed: float
    pids: frozenset[int] | None
    """Who felt it; None for everybody."""

    def touched(self, pid: int) -> bool:
        return self.pids is None or pid in self.pids

    def may(self, what: Excuse, lease: float) -> bool:
        """Tell whether it excuses that: by its kind, or, for an attempt charged, by how long it kept a worker away."""
        away = self.healed - self.at + RECONNECT > lease * LIFE - UNFLUSHED
        return what in KINDS[self.fault].excuses or (what == "charged" and away)


class Again(NamedTuple):
    """A job that started once more, though it had not raised, and why."""

    job: str
    run: str
    fault: str


@dataclass(slots=True)
class Findings:
    """What came out."""

    violations: list[str] = field(default_factory=list[str])
    again: list[Again] = field(default_factory=list[Again])
    charged: Counter[str] = field(default_factory=Counter[str])
    """Attempts charged because of faults, by fault."""
    lost: list[str] = field(default_factory=list[str])
    """Jobs that were acknowledged, and are not there or have not ended."""


class Evidence:
    """All that is compared.

    Args:
        ledger: What producers and workers wrote down.
        tables: The tables, after everything has ended.
        faults: What was done to them.
        refusals: Results that workers were told had come too late.
        lease: Of the workers, in seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        tables: Tables,
        faults: Sequence[Happened] = (),
        refusals: Sequence[Refusal] = (),
        lease: float = 3.0,
    ) -> None:
        self.ledger, self.tables, self.refusals = ledger, tables, refusals
        self.faults = sorted(faults, key=lambda fault: (fault.pids is None, fault.at))
        """What one process felt comes first: it explains more than what all did."""
        self.lease = lease
        self.tagged = _grouped((job.tag, job_id) for job_id, job in tables.jobs.items())
        self._runs = _grouped((run.job, run) for run in ledger.executions)

    def runs(self, job_id: str) -> list[Execution]:
        """Return a job's executions, in the order of their starts."""
        return self._runs.get(job_id, [])

    def charging(self, failure: Failure) -> Happened | None:
        """Return the fault that explains why this attempt was charged."""
        job = self.tables.jobs[failure.job]
        if lost := LOST.match(failure.error):
            return self._explaining("charged", failure.at, [int(lost[1])])
        pids = [run.pid for run in self.runs(failure.job) if run.attempt == failure.attempts - 1]
        if failure.error.startswith("TimeoutError: the worker stopped"):
            return self._explaining("again", failure.at, pids) if job.max_retries == 0 else None
        return self._explaining("transaction", failure.at, pids) if job.type in EFFECTS else None

    def commit_unheard(self, job_id: str, pid: int) -> bool:
        """Tell whether a job's own transaction was committed, but its worker may not have heard so.

        Then what it made of that, a failure, was refused. The result is written one statement before the COMMIT, so the
        fault may have begun in between.
        """
        at = self.tables.done[job_id].finished_at
        fault = self._explaining("transaction", at, [pid], before=UNWRITTEN)
        return self.tables.jobs[job_id].type in EFFECTS and fault is not None

    def _explaining(self, what: Excuse, at: float, pids: Sequence[int], before: float = 0.0) -> Happened | None:
        for fault in self.faults:
            near = fault.at - before <= at <= fault.healed + self.lease + UNWRITTEN
            if near and fault.may(what, self.lease) and any(map(fault.touched, pids)):
                return fault
        return None

    def redelivering(self, first: Execution, second: Execution) -> Happened | None:
        """Return the fault that explains why a job started twice in one attempt."""
        for fault in self.faults:
            unwritten = first.end is None or first.end > fault.at - UNWRITTEN
            between = first.start < fault.healed + self.lease and fault.at < second.start
            if unwritten and between and fault.touched(first.pid) and fault.may("again", self.lease):
                return fault
        return None


def _grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    grouped: dict[K, list[V]] = {}
    for key, value in pairs:
        grouped.setdefault(key, []).append(value)
    return grouped


def verify(evidence: Evidence) -> Findings:
    """Compare."""
    findings = Findings()
    for rule in (_enqueues, _places, _keys, _ends, _effects, _refusals):
        findings.violations += rule(evidence)
    findings.lost = [i for call in evidence.ledger.calls for i in call.ids or () if _is_lost(evidence.tables, i)]
    findings.violations += [f"job {i} was acknowledged and is lost" for i in findings.lost]
    findings.violations += _charges(evidence, findings)
    findings.violations += _starts(evidence, findings)
    return findings


def _is_lost(tables: Tables, job_id: str) -> bool:
    return job_id not in tables.jobs or job_id not in tables.done


def _enqueues(evidence: Evidence) -> Iterator[str]:
    """A call that was answered told the truth; one that was not has happened wholly, or not at all; none twice."""
    tagged = evidence.tagged
    for call in evidence.ledger.calls:
        there = sum(tag in tagged for tag in call.tags)
        if there not in {0, len(call.tags)}:
            yield f"call {call.number} ({call.kind}): {there} of {len(call.tags)} jobs are there"
        if call.rolled_back and there:
            yield f"call {call.number} was rolled back, and its job is there"
        if call.kind in {"commit", "rollback"} and (call.tags[0] in tagged) != (call.tags[0] in evidence.tables.notes):
            yield f"call {call.number}: its transaction was committed by halves"
        if not _told_the_truth(call, evidence.tables):
            yield f"call {call.number} ({call.kind}) was answered with other jobs than it asked for"
    known = {tag for call in evidence.ledger.calls for tag in call.tags}
    for tag, ids in tagged.items():
        if len(ids) > 1:
            yield f"one enqueue made {len(ids)} jobs: {', '.join(ids)}"
        if tag not in known:
            yield f"job {ids[0]} was enqueued by nobody"


def _told_the_truth(call: Call, tables: Tables) -> bool:
    answered = [tables.jobs[i] for i in call.ids or () if i in tables.jobs]  # what is not there is lost: see `verify`
    if call.key is not None:
        return all(job.key == call.key for job in answered)
    return len(answered) < len(call.ids or ()) or not answered or tuple(job.tag for job in answered) == call.tags


def _places(evidence: Evidence) -> Iterator[str]:
    """A job is in one place, and in the end that is `done`; nothing is in a place without a body."""
    tables = evidence.tables
    for job_id in tables.jobs.keys() | tables.places.keys():
        places = tables.places.get(job_id, ())
        if job_id not in tables.jobs:
            yield f"job {job_id} is in {', '.join(places)}, and has no body"
        elif places != ("done",):
            yield f"job {job_id} is in {', '.join(places) or 'no place'}, not in done alone"


def _keys(evidence: Evidence) -> Iterator[str]:
    """At any time one pending or running job at most has a key."""
    tables = evidence.tables
    lives = _grouped(
        (job.key, (job.created_at, tables.done[job_id].finished_at, job_id))
        for job_id, job in tables.jobs.items()
        if job.key is not None and job_id in tables.done
    )
    for key, jobs in lives.items():
        for (_, until, one), (since, _, other) in pairwise(sorted(jobs)):
            if since < until:
                yield f"jobs {one} and {other} had {key!r} at the same time"


def _ends(evidence: Evidence) -> Iterator[str]:
    """A completed job is a run that returned, by the worker that is named; a failed one had no retry left."""
    tables = evidence.tables
    for job_id, done in tables.done.items():
        job = tables.jobs.get(job_id)
        if job is None:
            continue
        if done.status == FAILED:
            if done.attempts != job.max_retries + 1:
                yield f"job {job_id} failed after {done.attempts} attempts of {job.max_retries + 1}"
            continue
        if done.status != COMPLETED:
            yield f"job {job_id} ended with status {done.status}"
        returned = {
            run.run: run
            for run in evidence.runs(job_id)
            if run.how == "returned" and run.worker == done.worker and run.attempt == done.attempts
        }
        if not returned:
            yield f"job {job_id} is completed by {done.worker}, where attempt {done.attempts + 1} has not returned"
        elif job.type in RETURNING and done.result not in returned:
            yield f"job {job_id} has the result of {done.result}, which is not what returned"


def _effects(evidence: Evidence) -> Iterator[str]:
    """What a transactional job writes is there once if it is completed, and not at all otherwise."""
    tables = evidence.tables
    for job_id, job in tables.jobs.items():
        done = tables.done.get(job_id)
        runs = tables.effects.get(job_id, ())
        wanted = int(job.type in EFFECTS and done is not None and done.status == COMPLETED)
        if len(runs) != wanted:
            yield f"job {job_id} has {len(runs)} effects instead of {wanted}"
        for run in evidence.runs(job_id):
            if done is not None and run.run in runs and run.worker != done.worker:
                yield f"job {job_id} has the effect of a run by {run.worker}, and is completed by {done.worker}"


def _refusals(evidence: Evidence) -> Iterator[str]:
    """What was refused was not counted."""
    refused = Counter((refusal.job, refusal.pid) for refusal in evidence.refusals)
    for (job_id, pid), times in refused.items():
        done = evidence.tables.done.get(job_id)
        mine = [run for run in evidence.runs(job_id) if run.pid == pid]
        counted = done is not None and done.status == COMPLETED and any(run.worker == done.worker for run in mine)
        if counted and len(mine) <= times and not evidence.commit_unheard(job_id, pid):
            yield f"job {job_id}: process {pid} was refused, and its result was counted"


def _charges(evidence: Evidence, findings: Findings) -> Iterator[str]:
    """Each attempt that is charged was a failure of the job's own, or a fault's, and was charged once."""
    tables = evidence.tables
    charged = _grouped((failure.job, failure.attempts) for failure in tables.failures)
    hiccups = Counter((run.job, run.attempt) for run in evidence.ledger.executions if run.how == "Hiccup")
    for failure in tables.failures:
        if failure.error.startswith("Hiccup"):
            if not hiccups[failure.job, failure.attempts - 1]:
                yield f"job {failure.job}: attempt {failure.attempts} is said to have raised, and has not"
        elif (fault := evidence.charging(failure)) is not None:
            findings.charged[fault.fault] += 1
        else:
            said = failure.error.partition("\n")[0]
            yield f"job {failure.job}: no fault explains why attempt {failure.attempts} was charged: {said}"
    for job_id, done in tables.done.items():
        if sorted(charged.get(job_id, [])) != list(range(1, done.attempts + 1)):
            yield f"job {job_id}: {done.attempts} attempts were charged for the failures {charged.get(job_id)}"


def _starts(evidence: Evidence, findings: Findings) -> Iterator[str]:
    """An attempt starts once, unless a fault undid its start; no attempt is made beyond the last."""
    failures = {(failure.job, failure.attempts): failure for failure in evidence.tables.failures}
    for job_id in {run.job: None for run in evidence.ledger.executions}:
        runs, job = evidence.runs(job_id), evidence.tables.jobs.get(job_id)
        if job is None:
            yield f"job {job_id} ran, and is not there"
            continue
        if runs[-1].attempt > job.max_retries:
            yield f"job {job_id} started in attempt {runs[-1].attempt + 1} of {job.max_retries + 1}"
        if job.max_retries == 0 and len(runs) > 1:
            yield f"job {job_id} may start once, and started {len(runs)} times"
        for first, second in pairwise(sorted(runs, key=lambda run: (run.attempt, run.start))):
            if first.how == "Hiccup" and second.attempt > first.attempt:
                continue
            if first.attempt == second.attempt:
                fault = evidence.redelivering(first, second)
            else:
                failure = failures.get((job_id, second.attempt))
                fault = evidence.charging(failure) if failure is not None else None
            if fault is None:
                yield f"job {job_id}: no fault explains why it started again, as {second.run} after {first.run}"
            else:
                findings.again.append(Again(job_id, second.run, fault.fault))
