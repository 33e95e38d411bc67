"""One worker in this process: checks, starts, waits for a signal, stops."""

from __future__ import annotations

import atexit
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from dbjobq.cli.serving.lifeline import TOLD, Lifeline
from dbjobq.cli.serving.signals import Events
from dbjobq.cli.settings import Database
from dbjobq.errors import StorageUnavailable
from dbjobq.events.bus import emit
from dbjobq.events.names import DATABASE_UNAVAILABLE, WORKER_NO_JOB_TYPES, WORKER_SERVING, WORKER_STOPPING
from dbjobq.imports import import_modules
from dbjobq.runtime.backoff import ReconnectBackoff
from dbjobq.signals import on_stop_signals
from dbjobq.storage.postgres.connect.errors import translated

if TYPE_CHECKING:
    from dbjobq.storage.postgres_storage import PostgresStorage
    from dbjobq.worker import Worker

__all__ = ["WorkerSettings", "leave", "serve"]

THREADS_GRACE: Final = 1.0
"""Seconds that the threads of jobs get to end when the worker has ended."""

Event = Literal["stop", "signal", "ended"]
"""Each `stop` counts, and so does each signal. Under a parent, which passes signals on, all signals count as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The settings of `dbjobq worker`; durations in seconds. `Worker` checks them."""

    modules: tuple[str, ...]
    queues: tuple[str, ...]
    """The queues to serve; all if empty."""
    concurrency: int
    poll_interval: float
    max_poll_interval: float
    lease: float
    shutdown_timeout: float
    stuck_after: float
    """Seconds after which a job counts as stuck; 0 for never."""
    unknown_within: float

    def arguments(self) -> list[str]:
        """Return the words of a command line with these settings."""
        options: dict[str, Any] = {
            "--concurrency": self.concurrency,
            "--poll-interval": self.poll_interval,
            "--max-poll-interval": self.max_poll_interval,
            "--lease": self.lease,
            "--shutdown-timeout": self.shutdown_timeout,
            "--stuck-after": self.stuck_after,
            "--unknown-within": self.unknown_within,
        }
        words = [f"{name}={value}" for name, value in options.items()]
        return [*self.modules, *words, *(f"--queue={name}" for name in self.queues)]


def serve(database: Database, settings: WorkerSettings, lifeline: Lifeline | None = None) -> int:
    """Run a worker until it is told to stop, or cannot go on.

    Args:
        database: The database of the jobs.
        settings: The worker's settings.
        lifeline: The lifeline to the process that started this one, if one did.

    Returns:
        The exit code: 0 after a signal or the parent's end.

    Raises:
        DBJobQError: The worker cannot start: a module, the DSN or the tables are not as they should be. For a server
            that is away it waits.
    """
    told = 0 if lifeline is None else TOLD
    on_stop_signals(lambda: sys.exit(told))  # without a worker there is nothing to finish
    import_modules(settings.modules, Path.cwd())
    events: Events[Event] = Events()
    if lifeline is not None:
        lifeline.listen(on_stop=lambda: events.put("stop"), on_cut=lambda: events.put("signal"))
    with database.storage() as storage:
        where = _reach(storage, events)
        if where is None:
            return told
        worker = _make(storage, settings)
        on_stop_signals(lambda: events.put("stop" if lifeline is None else "signal"))
        worker.start()
        _log_start(settings, storage.schema, where)
        if lifeline is not None:
            lifeline.ready()
        _call_then(worker.join, lambda: events.put("ended"))
        _wait(worker, events)
    return 0 if worker.error is None else 1  # the worker has logged why


def _reach(storage: PostgresStorage, events: Events[Event]) -> str | None:
    """Wait until the server answers, as a worker does when it goes away; None if told to stop before."""
    backoff, troubled = ReconnectBackoff(), False
    while True:
        try:
            return _check(storage)
        except StorageUnavailable as error:
            if not troubled:
                emit(DATABASE_UNAVAILABLE, error=str(error), pid=os.getpid())
            troubled = True
        if events.get(backoff.next(random.random())) is not None:  # noqa: S311 - spread, not secrecy
            return None


def _check(storage: PostgresStorage) -> str:
    """Refuse tables that this library does not run on; return the database's name and host."""
    storage.check().run()
    with translated(storage.schema), storage.transaction() as connection:
        where = f"{connection.info.dbname}@{connection.info.host or 'local'}"
    storage.close()  # most jobs need no connection of their own, and the pool opens again for those that do
    return where


def _make(storage: PostgresStorage, settings: WorkerSettings) -> Worker:
    from dbjobq.queue.queues import JobQueue
    from dbjobq.worker import Worker

    return Worker(
        JobQueue(storage),
        settings.poll_interval,
        settings.max_poll_interval,
        concurrency=settings.concurrency,
        queues=settings.queues or None,
        lease=settings.lease,
        shutdown_timeout=settings.shutdown_timeout,
        stuck_after=settings.stuck_after or None,
        unknown_within=settings.unknown_within,
        imports=settings.modules,
    )


def _log_start(settings: WorkerSettings, schema: str, where: str) -> None:
    from dbjobq.jobs.registry import registered

    known = sorted(registered())
    emit(
        WORKER_SERVING,
        tasks=",".join(known) if len(known) <= 10 else len(known),
        queues=",".join(settings.queues) or "all",
        database=where,
        schema=schema,
        concurrency=settings.concurrency,
        pid=os.getpid(),
    )
    if not known:
        why = "no @job in them: only functions that they define themselves can run"
        emit(WORKER_NO_JOB_TYPES, modules=",".join(settings.modules), why=why)


def _call_then(call: Callable[[], None], then: Callable[[], None]) -> None:
    def run() -> None:
        call()
        then()

    threading.Thread(target=run, name="dbjobq-cli", daemon=True).start()


def _wait(worker: Worker, events: Events[Event]) -> None:
    """Wait until the worker has ended, its `stop` has given up, or a third signal has come."""
    words = stops = 0
    while stops < 3 and (event := events.get()) != "ended":
        words += event == "stop"
        before, stops = stops, max(words, 1)
        if before == 0:
            emit(WORKER_STOPPING, pid=os.getpid())
            _call_then(worker.stop, lambda: events.put("ended"))
        elif before == 1 and stops == 2:
            worker.hasten()


def leave(code: int) -> NoReturn:
    """End this process as usual, but without waiting for threads of jobs that never end.

    The interpreter would wait for the threads of a `ThreadPoolExecutor` even if they are daemons.
    """
    by = time.monotonic() + THREADS_GRACE
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            thread.join(max(0.0, by - time.monotonic()))
    atexit._run_exitfuncs()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - there is no public name
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
