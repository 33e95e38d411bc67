"""`def` jobs: daemon threads that take chunks of claims from a queue, so that short jobs cost no hand-over each.

A thread cannot be stopped from outside. One whose job timed out, was cancelled or outlived the worker is abandoned:
what its function still returns is dropped, the thread ends then, and another has taken its place. So has it where a job
runs for very long, but then what that returns counts.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from dbjobq.attempt.outcome import failed
from dbjobq.events.loggers import running_here
from dbjobq.jobs.registry import Task
from dbjobq.storage.values import Claim, Outcome

if TYPE_CHECKING:
    from dbjobq.jobs.context import JobContext

__all__ = ["Chunk", "Threads"]


class Chunk:
    """Claims that one thread works off in order. The loop may take back those that are not started."""

    __slots__ = (
        "_awaits",
        "abandoned",
        "claim",
        "claims",
        "context",
        "done",
        "outcomes",
        "relieved",
        "thread",
        "waiting",
    )

    def __init__(self, waiting: deque[tuple[Claim, Task]], done: asyncio.Future[None]) -> None:
        self.waiting = waiting
        self.claims = [claim for claim, _ in waiting]
        """All that came with it, ended or not."""
        self.done = done
        self.claim: Claim | None = None
        """What runs now."""
        self.context: JobContext | None = None
        self.outcomes: list[Outcome] = []
        self.thread: int | None = None
        """Which one works on it."""
        self.relieved = False
        """Another thread has taken the place of the one that works on it."""
        self.abandoned = False
        """So it has, and nothing that comes of it counts."""
        self._awaits: Future[Any] | None = None

    def awaits(self, future: Future[Any] | None) -> None:
        """Its thread waits for this, which runs on the loop, or has waited. From the thread."""
        self._awaits = future
        if self.abandoned and future is not None:
            future.cancel()

    def abandon(self) -> None:
        """Nothing that comes of it counts from now on; what runs for it on the loop is cancelled."""
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
    """As many threads as were ever needed at once, at most `limit`.

    Args:
        limit: The worker's concurrency.
        run: Runs one job in a thread and returns its outcome; None if it may not be started, or has been recorded.
    """

    def __init__(self, limit: int, run: Callable[[Claim, Task, Chunk], Outcome | None]) -> None:
        self._limit, self._run = limit, run
        self._queue: SimpleQueue[Chunk | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._alive = self._busy = 0

    def submit(self, chunk: Chunk) -> RuntimeError | None:
        """Hand over a chunk; its `done` is set on the loop when it is worked off.

        Returns:
            Why it was not handed over: there is no thread, and the system gives none.
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
        """Let another take the place of the chunk's thread, which ends with it."""
        if not chunk.relieved:
            chunk.relieved = True
            self._busy -= 1
            self._alive -= 1

    def abandon(self, chunk: Chunk) -> None:
        """Forget the chunk's thread: it ends when its function returns, and nothing that it returns counts."""
        self.relieve(chunk)
        chunk.abandon()

    def wait(self, rest: Coroutine[Any, Any, Any], chunk: Chunk) -> Any:
        """Have the loop await what a `def` has returned, and return its result; called in the chunk's thread."""
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
            chunk.thread = me
            while True:
                try:
                    claim, task = chunk.waiting.popleft()
                except IndexError:
                    break
                chunk.claim = claim
                # A context of its own: what a job leaves in context variables is not for the next one.
                try:
                    outcome = base.copy().run(self._run, claim, task, chunk)
                except BaseException as error:  # the thread must go on, and the chunk end, whatever that was
                    outcome = failed(claim, error)
                if outcome is not None and not chunk.abandoned:
                    chunk.outcomes.append(outcome)  # before it is seen to have ended
                chunk.claim = chunk.context = None
                if chunk.abandoned:
                    return
            try:
                self._loop.call_soon_threadsafe(self._end, chunk)
            except RuntimeError:  # the loop is closed: the worker has stopped without us
                return
            if chunk.relieved:
                return
            del chunk  # an idle thread keeps no job's data alive

    def _end(self, chunk: Chunk) -> None:
        if not chunk.relieved:
            self._busy -= 1
        if not chunk.done.done():
            chunk.done.set_result(None)
