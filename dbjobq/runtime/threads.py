"""`def` jobs: daemon threads take chunks of claims from a queue, so that short jobs cost no hand-over each.

A thread cannot be stopped from outside. A thread whose job timed out, was cancelled or outlived the worker is
abandoned: another takes its place, its function's result is dropped, and the thread ends when that function returns. A
thread whose job runs for very long is relieved: another takes its place, but the job's result counts.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from dbjobq.attempt.outcome import failed
from dbjobq.events.loggers import running_here
from dbjobq.jobs.registry import JobType
from dbjobq.storage.values import Claim, Outcome

if TYPE_CHECKING:
    from dbjobq.jobs.context import JobContext

__all__ = ["Chunk", "Threads"]


class Chunk:
    """Claims that one thread runs in order. The event loop may take back those that are not started."""

    __slots__ = (
        "_awaits",
        "abandoned",
        "claim",
        "claims",
        "context",
        "done",
        "outcomes",
        "relieved",
        "seconds",
        "thread",
        "waiting",
    )

    def __init__(self, waiting: deque[tuple[Claim, JobType]], done: asyncio.Future[None]) -> None:
        self.waiting = waiting
        self.claims = [claim for claim, _ in waiting]
        """All claims of the chunk, ended or not."""
        self.done = done
        self.claim: Claim | None = None
        """The claim of the job that runs now; None between two jobs."""
        self.context: JobContext | None = None
        self.outcomes: list[Outcome] = []
        self.thread: int | None = None
        """The identifier of the thread that runs the chunk."""
        self.seconds = 0.0
        """Seconds that the jobs of the chunk took, without the wait for a thread; 0 until all have ended."""
        self.relieved = False
        """Whether another thread has taken the place of this chunk's thread."""
        self.abandoned = False
        """Whether the thread has been replaced and its results are discarded."""
        self._awaits: Future[Any] | None = None

    def awaits(self, future: Future[Any] | None) -> None:
        """Note the future on the event loop that the chunk's thread waits for; None if none. Called by the thread."""
        self._awaits = future
        if self.abandoned and future is not None:
            future.cancel()

    def abandon(self) -> None:
        """Discard the chunk's results from now on, and cancel the future on the event loop that its thread awaits."""
        self.abandoned = True
        if (future := self._awaits) is not None:
            future.cancel()

    def take_back(self) -> list[Claim]:
        """Return the claims that are not started, in order; the thread will not see them."""
        taken: list[Claim] = []
        with suppress(IndexError):
            while True:
                taken.append(self.waiting.pop()[0])
        return taken[::-1]


class Threads:
    """Threads for `def` jobs: as many as were ever needed at once, at most `limit`.

    Args:
        limit: The worker's concurrency.
        run: Runs one job in a thread and returns its outcome; None if it may not be started, or has been written.
    """

    def __init__(self, limit: int, run: Callable[[Claim, JobType, Chunk], Outcome | None]) -> None:
        self._limit, self._run = limit, run
        self._queue: SimpleQueue[Chunk | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._alive = self._busy = 0

    def submit(self, chunk: Chunk) -> RuntimeError | None:
        """Hand over a chunk; its `done` is set on the event loop when all of it has run.

        Returns:
            The error if no thread is idle, and the system gives no more.
        """
        if self._busy >= self._alive and self._alive < self._limit:
            try:
                threading.Thread(target=self._work, name="dbjobq-job", daemon=True).start()
                self._alive += 1
            except RuntimeError as error:
                if not self._alive:
                    return error
        self._busy += 1
        self._queue.put(chunk)
        return None

    def relieve(self, chunk: Chunk) -> None:
        """Let another thread take the place of the chunk's, which ends with the chunk."""
        if not chunk.relieved:
            chunk.relieved = True
            self._busy -= 1
            self._alive -= 1

    def abandon(self, chunk: Chunk) -> None:
        """Forget the chunk's thread: it ends when its function returns, and its results are discarded."""
        self.relieve(chunk)
        chunk.abandon()

    def wait(self, rest: Coroutine[Any, Any, Any], chunk: Chunk) -> Any:
        """Have the event loop await a `def`'s coroutine, and return its result; called in the chunk's thread."""
        chunk.awaits(future := asyncio.run_coroutine_threadsafe(rest, self._loop))
        try:
            return future.result()
        finally:
            chunk.awaits(None)

    def stop(self) -> None:
        """Let the idle threads end."""
        for _ in range(self._alive):
            self._queue.put(None)

    def _work(self) -> None:
        chunk: Chunk | None = None
        base, me = copy_context(), threading.get_ident()
        base.run(running_here.set, lambda: None if chunk is None else chunk.claim)
        while (chunk := self._queue.get()) is not None:
            chunk.thread, since = me, time.perf_counter()
            while True:
                try:
                    claim, task = chunk.waiting.popleft()
                except IndexError:
                    break
                chunk.claim = claim
                # Each job has a context of its own: the next one must not see its context variables.
                try:
                    outcome = base.copy().run(self._run, claim, task, chunk)
                except BaseException as error:  # whatever it is, the thread must go on, and the chunk end
                    outcome = failed(claim, error)
                if outcome is not None and not chunk.abandoned:
                    chunk.outcomes.append(outcome)  # before others see that the job has ended
                chunk.claim = chunk.context = None
                if chunk.abandoned:
                    return
            chunk.seconds = time.perf_counter() - since
            try:
                self._loop.call_soon_threadsafe(self._end, chunk)
            except RuntimeError:  # the event loop is closed: the worker has stopped without this thread
                return
            if chunk.relieved:
                return
            del chunk  # so that an idle thread keeps no job's data alive

    def _end(self, chunk: Chunk) -> None:
        if not chunk.relieved:
            self._busy -= 1
        if not chunk.done.done():
            chunk.done.set_result(None)
