"""The story: many files, one job each; a worker is killed half-way; nothing is lost, and the totals agree."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dbjobq.demo.files import text_files
from dbjobq.demo.jobs import facts_of, ping, survey
from dbjobq.demo.rate import Rate
from dbjobq.demo.report import Kill, Report
from dbjobq.demo.stage import Stage, staged
from dbjobq.demo.totals import Totals, total
from dbjobq.errors import ConfigError, DBJobQError
from dbjobq.queue.queues import JobQueue
from dbjobq.rig.progress import Progress
from dbjobq.rig.workers import StartWorker

__all__ = ["Plan", "play"]

COUNT_EVERY: Final = 0.05
"""Seconds between two counts of the jobs that have ended."""
DEMO_STALLED: Final = 30.0
"""Seconds without a job's end after which the demo gives up."""
SETTLE: Final = 0.02
"""Seconds to wait for messages that are on their way, and for an idle worker to fall asleep."""
FREEZES: Final = 20
"""How often to look for a moment in which the first worker holds jobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The settings of a demo."""

    root: Path
    """The folder whose files are read."""
    dsn: str = ""
    listen_dsn: str | None = None
    workers: int = 2
    concurrency: int = 4
    lease: float = 3.0
    pings: int = 200
    """How many jobs are enqueued one by one, to measure how soon an idle worker starts them."""


def play(plan: Plan, start: StartWorker, progress: Progress) -> Report:
    """Play the story and return its report.

    Raises:
        DBJobQError: The story cannot be played: no files, no server, no worker, or no job ends any more.
    """
    paths = [str(path) for path in text_files(plan.root)]
    if not paths:
        raise ConfigError(f"there are no text files below {plan.root}")
    progress.say(f"{len(paths):,} text files below {plan.root}")
    with staged(
        start, dsn=plan.dsn, listen_dsn=plan.listen_dsn, lease=plan.lease, concurrency=plan.concurrency
    ) as stage:
        progress.say(f"{stage.server}; starting {plan.workers} worker processes")
        stage.workers.start(plan.workers)
        return _Story(plan, stage, progress, paths).tell()


class _Story:
    def __init__(self, plan: Plan, stage: Stage, progress: Progress, paths: Sequence[str]) -> None:
        self._plan, self._stage, self._progress, self._paths = plan, stage, progress, paths
        self._queue = JobQueue(stage.storage)
        self._rate = Rate()

    def tell(self) -> Report:
        begun = time.monotonic()
        self._enqueue()
        done = self._work_until(len(self._paths) // 2)
        rate = done / (time.monotonic() - begun)
        kill = self._kill_one()
        self._work_until(len(self._paths))
        seconds = time.monotonic() - begun
        self._progress.say(f"all jobs have ended after {seconds:.1f} s; now {self._plan.pings} jobs, one at a time")
        latencies = self._ping()
        self._progress.say("computing the same totals without the queue")
        plain, plain_seconds = _without_queue(self._paths)
        jobs = self._queue.get_completed_jobs()
        surveyed = [job for job in jobs if job.type == "dbjobq.demo.jobs.survey"]
        begun_twice, ended_twice = self._stage.runs.twice()
        return Report(
            server=self._stage.server,
            workers=self._plan.workers,
            by_queue=total((job.data["path"], job.result) for job in surveyed),
            without_queue=plain,
            lost=len(self._paths) + self._plan.pings - len(jobs),
            seconds=seconds,
            plain_seconds=plain_seconds,
            jobs_per_second=rate,
            kill=kill,
            attempts_charged=sum(job.attempts for job in jobs),
            begun_twice=begun_twice,
            ended_twice=ended_twice,
            latencies=latencies,
        )

    def _enqueue(self) -> None:
        begun = time.monotonic()
        self._queue.enqueue_many(survey, ({"path": path} for path in self._paths))
        self._progress.say(f"{len(self._paths):,} jobs enqueued in {(time.monotonic() - begun) * 1000:.0f} ms")

    def _work_until(self, count: int) -> int:
        """Wait until `count` jobs have ended; return how many have."""
        before, moved_at = -1, time.monotonic()
        while (ended := self._look()) < count:
            if ended > before:
                before, moved_at = ended, time.monotonic()
            elif time.monotonic() - moved_at > DEMO_STALLED:
                raise DBJobQError(f"no job has ended for {DEMO_STALLED:.0f} s; there are {self._queue.stats()}")
            time.sleep(COUNT_EVERY)
        return ended

    def _look(self) -> int:
        """Show the progress, and return how many jobs have ended."""
        stats = self._queue.stats()
        ended = stats["total"] - stats["pending"] - stats["running"]
        self._progress.update(ended, stats["total"], f"{self._rate.update(ended):,.0f} jobs/s")
        return ended

    def _kill_one(self) -> Kill:
        """Kill a worker at its work, start another, and wait until the killed worker's jobs have been taken back."""
        pid = self._stage.workers.first()
        self._kill_at_work(pid)
        killed_at = time.monotonic()
        time.sleep(SETTLE)  # until the server has handled everything that the worker had sent
        held = self._held_by(pid)
        self._progress.say(f"killed worker process {pid} (SIGKILL), which held {len(held)} jobs; starting another")
        self._stage.workers.start(1)
        while self._held_by(pid):
            if time.monotonic() - killed_at > DEMO_STALLED:
                raise DBJobQError(f"the jobs of worker process {pid} were not recovered in {DEMO_STALLED:.0f} s")
            self._look()
            time.sleep(COUNT_EVERY)
        seconds = time.monotonic() - killed_at
        self._progress.say(f"its jobs were taken from it after {seconds:.1f} s; its lease was {self._plan.lease:g} s")
        return Kill(pid=pid, held=len(held), recovered_after=seconds)

    def _kill_at_work(self, pid: int) -> None:
        """Kill the first worker while it holds jobs, or anyway after `FREEZES` looks that found none."""
        for last in (*[False] * FREEZES, True):
            with self._stage.workers.first_frozen():
                time.sleep(SETTLE)
                if last or self._held_by(pid):
                    self._stage.workers.kill_first()
                    return
            time.sleep(SETTLE)

    def _held_by(self, pid: int) -> list[str]:
        return [job.id for job in self._queue.get_running_jobs() if f":{pid}:" in (job.worker_id or "")]

    def _ping(self) -> list[float]:
        """Enqueue jobs one at a time to idle workers; return the seconds each waited, by the server's clock."""
        latencies: list[float] = []
        for _ in range(self._plan.pings):
            time.sleep(SETTLE)
            job_id = self._queue.enqueue(ping)
            by = time.monotonic() + DEMO_STALLED
            while (job := self._queue.get_job(job_id)) is None or job.started_at is None or job.created_at is None:
                if time.monotonic() > by:
                    raise DBJobQError(f"job {job_id} was not started within {DEMO_STALLED:.0f} s")
                time.sleep(0.002)
            latencies.append((job.started_at - job.created_at).total_seconds())
        self._work_until(len(self._paths) + self._plan.pings)
        return latencies


def _without_queue(paths: Sequence[str]) -> tuple[Totals, float]:
    begun = time.monotonic()
    found = total((path, facts_of(Path(path))) for path in paths)
    return found, time.monotonic() - begun
