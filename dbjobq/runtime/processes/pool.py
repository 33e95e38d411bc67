"""Processes for jobs with `executor="process"`: started when needed, one for each job at once, and kept for a while.

A slot awaits such a job as it awaits an `async def`; a cancellation of that wait kills the process. A job is not
reported as failed before it runs no more: others would start it beside itself.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import socket
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final

from dbjobq.attempt.run import within
from dbjobq.events.bus import emit
from dbjobq.events.names import JOB_PROCESS_KILLED
from dbjobq.jobs.middleware import Middleware, name_of
from dbjobq.jobs.registry import JobType, home_of
from dbjobq.runtime.config import WorkerConfig
from dbjobq.runtime.processes.channel import Setup
from dbjobq.runtime.processes.process import JobProcess, Work
from dbjobq.runtime.slot import Slot
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.values import Claim, Outcome

__all__ = ["Processes"]

START: Final = 60.0
"""Seconds that a process gets to start and to import its modules; a job's timeout begins after that."""
JOB_GRACE: Final = 1.0
"""Seconds that a cancelled job gets to end by itself, and its killed process to be gone."""


class Processes:
    """See the module. Used on the worker's loop.

    Args:
        storage: The storage behind `ctx.queue`; each process makes its own from the same recipe.
        worker_id: The worker's name, for `Job.worker_id`.
        config: The worker's settings. Each process imports the same modules, and finds the worker's middleware there.
    """

    def __init__(self, storage: BaseStorage, worker_id: str, config: WorkerConfig) -> None:
        self._storage, self._worker_id, self._config = storage, worker_id, config
        self._loop = asyncio.get_running_loop()
        self._all: set[JobProcess] = set()
        self._idle: list[JobProcess] = []

    async def run(
        self,
        claim: Claim,
        task: JobType,
        timeout: float | None,  # noqa: ASYNC109 - the job's own
        slot: Slot,
        on_progress: Callable[[str], None],
    ) -> Outcome:
        """Run a job.

        Raises:
            ProcessDied: The process ended before the job did.
            TimeoutError: The job took too long, and runs no more.
            OSError: No process can be started.
        """
        process = self._take() or await self._start()
        work = process.begin(claim, task, on_progress)
        try:
            await within(START, _awaited(work.started), "the process of this job was not ready within {} s")
            outcome: Outcome = await within(timeout, _awaited(work.outcome))
        except (TimeoutError, asyncio.CancelledError) as error:
            hears = work.started.done() and (task.is_async or task.context is not None)
            cancelled = slot.verdict == "cancelled"
            urgent = isinstance(error, asyncio.CancelledError) and not cancelled  # others may start the job now
            await self._end(process, work, JOB_GRACE if hears and not urgent else 0.0, cancelled=cancelled)
            raise
        self._keep(process)
        return outcome

    def kill(self, claims: Collection[Claim]) -> None:
        """Kill the processes of these jobs; from any thread, for an event loop that is blocked."""
        for process in tuple(self._all):
            if process.claim in claims:
                process.kill()

    async def close(self) -> None:
        """End all processes: kill those at work, and let the idle ones exit."""
        for process in tuple(self._all):
            process.end()
        if self._all:
            await asyncio.wait([process.gone for process in self._all], timeout=2 * JOB_GRACE)

    def _take(self) -> JobProcess | None:
        while self._idle:
            process = self._idle.pop()  # the one that worked last, so that the others become old and end
            if process.usable:
                return process
        return None

    def _keep(self, process: JobProcess) -> None:
        if process.usable:
            self._idle.append(process)
            process.end_later()

    async def _start(self) -> JobProcess:
        mine, theirs = socket.socketpair()
        process = JobProcess(mine)
        with theirs:
            try:
                await self._loop.create_unix_connection(lambda: process, sock=mine)
                process.spawn(theirs, self._setup())
            except BaseException:
                with suppress(OSError):
                    mine.shutdown(socket.SHUT_RDWR)  # the loop closes it then
                raise
        self._all.add(process)
        process.gone.add_done_callback(lambda _: self._forget(process))
        return process

    def _forget(self, process: JobProcess) -> None:
        self._all.discard(process)
        if process in self._idle:
            self._idle.remove(process)

    async def _end(self, process: JobProcess, work: Work, grace: float, *, cancelled: bool) -> None:
        """Tell a job that it is not wanted any more, and kill its process if the job does not end in time."""
        try:
            if grace:
                process.send("cancel")
                await asyncio.wait([work.outcome], timeout=grace)
        finally:
            if work.outcome.done():
                self._keep(process)
            else:
                emit(JOB_PROCESS_KILLED, work.claim, quietly=cancelled, pid=process.pid)
                work.outcome.cancel()
                process.kill()
        if not process.usable:
            await asyncio.wait([process.gone], timeout=JOB_GRACE)

    def _setup(self) -> Setup:
        """Return the settings that make a process like this one; see `child`."""
        loggers = logging.root.manager.loggerDict.items()
        levels = {name: log.level for name, log in loggers if isinstance(log, logging.Logger) and log.level}
        recipe = self._storage.recipe()
        return {
            "path": [str(folder) or os.getcwd() for folder in sys.path],  # noqa: PTH109 - as sys.path has it
            "argv": sys.argv,
            "pythonpath": os.environ.get("PYTHONPATH"),
            "levels": {"": logging.root.level, **levels},
            "imports": list(self._config.imports),
            "worker_id": self._worker_id,
            "unknown_within": self._config.unknown_within,
            "middleware": [_place(function) for function in self._config.middleware],
            "recipe": None if recipe is None else tuple(recipe),
        }


def _place(function: Middleware) -> tuple[str, str | None, str]:
    """Return where a process finds a middleware: a module, the file if that is a script, and a name."""
    if not inspect.isfunction(function):  # a method, a partial: no name leads to it
        return "", None, name_of(function)
    return *home_of(function), function.__qualname__


async def _awaited(future: asyncio.Future[Any]) -> Any:
    """Await a future without cancelling it, so that others may still await it."""
    return await asyncio.shield(future)
