"""Producers at work, and what must have become of what they were told is enqueued."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Self

from dbjobq import JobQueue, PostgresStorage
from tests.storage.database import Database
from tests.support import handlers
from tests.support.process import read_diary
from tests.support.waiting import settled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.process import Note

LONGEST_PAUSE = """
select date_part('epoch', max(pause))::float8 from (
    select created_at - lag(created_at) over (order by created_at) as pause from dbjobq.job
    union all
    select finished_at - lag(finished_at) over (order by finished_at) from dbjobq.done
) as pauses
"""


class Load:
    """Threads that enqueue, and look, in all the ways there are; each for as long as the block lasts.

    Args:
        dsn: Where to.
        folder: Where the workers' handlers write their diary.
    """

    def __init__(self, dsn: str, folder: Path) -> None:
        self._dsn, self._diary = dsn, folder / "diary"
        self._storage = PostgresStorage(dsn)
        self.queue = JobQueue(self._storage)
        self.ids: list[str] = []
        """What was acknowledged."""
        self._errors: list[BaseException] = []
        self._enough = threading.Event()
        self._threads = [
            threading.Thread(target=self._again, args=(every, call))
            for every, call in ((0.01, self._singly), (0.1, self._otherwise), (0.1, self._look))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join(60)
        self._storage.close()
        assert self._errors == []

    def _again(self, every: float, call: Callable[[], None]) -> None:
        try:
            while not self._enough.wait(every):
                call()
        except BaseException as error:
            self._errors.append(error)

    def _singly(self) -> None:
        self.ids.append(self.queue.enqueue(handlers.awork, seconds=0.002))

    def _otherwise(self) -> None:
        number = len(self.ids)
        self.ids.extend(self.queue.enqueue_many(handlers.work, [{"seconds": 0.001}] * 3))
        self.ids.append(self.queue.options(delay=0.2).enqueue(handlers.awork))
        self.ids.append(self.queue.options(unique_key=f"key {number}").enqueue(handlers.awork))

    def _look(self) -> None:
        if self.ids:
            assert self.queue.get_job(self.ids[-1]) is not None
        self.queue.list_jobs(limit=5)
        self.queue.stats()

    def diary(self, word: str) -> list[Note]:
        """What the handlers did."""
        return [note for note in read_diary(self._diary) if note.word == word]

    def more(self, jobs: int) -> Callable[[], bool]:
        """Return whether so many more have ended since now."""
        before = len(self.diary("end"))
        return lambda: len(self.diary("end")) >= before + jobs

    def worked_off(self) -> None:
        """Wait for the end of all; check that each has completed, started once, and was charged nothing."""
        with PostgresStorage(self._dsn) as storage:
            queue = JobQueue(storage)
            settled(queue, 60)
            jobs = {job.id: job for job in queue.list_jobs()}
        assert len(self.ids) == len(set(self.ids))
        assert set(self.ids) == set(jobs)
        assert {(job.status, job.attempts, job.error) for job in jobs.values()} == {("completed", 0, None)}
        assert Counter(note.job_id for note in self.diary("start")) == Counter(self.ids)
        assert Counter(note.job_id for note in self.diary("end")) == Counter(self.ids)

    def longest_pause(self) -> float:
        """The longest time in which nothing was enqueued, or nothing completed, by the server's clock.

        Not what a job had to wait: on a busy machine that tells of the machine.
        """
        with Database(self._dsn) as database:
            return float(database.value(LONGEST_PAUSE))
