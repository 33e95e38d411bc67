"""One queue, driven both ways: every test that takes `queue` runs on JobQueue and on AsyncJobQueue."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any, cast

import pytest

from dbjobq import AsyncJobQueue, BaseStorage, JobQueue
from dbjobq.queue.queues import AsyncWithOptions
from tests.storage.database import database

__all__ = ["database"]


class Awaited:
    """An async queue whose methods wait: `queue.enqueue(…)` is `await queue.enqueue(…)`."""

    def __init__(self, target: AsyncJobQueue | AsyncWithOptions, runner: asyncio.Runner) -> None:
        self._target, self._runner = target, runner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            answer = found(*args, **kwargs)
            if inspect.iscoroutine(answer):
                return self._runner.run(answer)
            return Awaited(answer, self._runner) if isinstance(answer, AsyncWithOptions) else answer

        return call


@pytest.fixture
def kind_of_queue() -> str:
    """The kind of queue under test: both, one after the other (tests/conftest.py)."""
    return "sync"


@pytest.fixture
def queue(kind_of_queue: str, storage: BaseStorage) -> Iterator[JobQueue]:
    """The queue under test; whichever it is, it is called as a `JobQueue`."""
    if kind_of_queue == "sync":
        yield JobQueue(storage)
        return
    with asyncio.Runner() as runner:
        queue = Awaited(AsyncJobQueue(storage), runner)
        yield cast("JobQueue", queue)
        queue.close()


@pytest.fixture
def plain(storage: BaseStorage) -> JobQueue:
    """A sync queue, where how it waits does not matter."""
    return JobQueue(storage)


@pytest.fixture
def rescued(storage: BaseStorage) -> Any:
    """Takes back what has expired, as any worker would."""

    def rescue() -> list[str]:
        pulse = storage.session("rescuer", None, 30.0).pulse()
        try:
            return [job.id for job in pulse.rescue()]
        finally:
            pulse.close()

    return rescue
