"""`Worker`: a daemon thread around an event loop on which jobs run (docs/workers.md)."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Final, Self

from dbjobq.attempt.outcome import UNKNOWN_WITHIN
from dbjobq.errors import DBJobQError
from dbjobq.events.bus import emit
from dbjobq.events.names import WORKER_FAILED, WORKER_STARTED, WORKER_STOP_TIMEOUT, WORKER_STOPPED
from dbjobq.hooks import settle
from dbjobq.imports import import_modules
from dbjobq.jobs.middleware import Middleware
from dbjobq.maintenance.duty import Duty
from dbjobq.maintenance.rescue import Rescue
from dbjobq.models import Job
from dbjobq.queue.queues import AsyncJobQueue, JobQueue
from dbjobq.runtime.config import WorkerConfig
from dbjobq.runtime.loop import event_loop, run_to_the_end
from dbjobq.runtime.processes.channel import Channel
from dbjobq.runtime.supervisor import Supervisor
from dbjobq.storage.values import Claim

__all__ = ["Worker"]

DUTIES: Final[tuple[Duty, ...]] = (Rescue(),)
"""The duties: work that every worker does for all workers."""
HOOKS_LAST: Final = 1.0
"""Seconds that a worker which ends waits for hooks to hear of it."""


class Worker:
    """Processes jobs in a background thread, until `stop()`.

    `async def` jobs run on the thread's event loop, `def` jobs on threads of their own, and jobs with
    `@job(executor="process")` in processes. While there are due jobs the worker claims one after the other. When there
    are none it waits, twice as long each time, from `poll_interval` to `max_poll_interval`; a NOTIFY, or a job that
    falls due, ends the wait at once.

    Args:
        job_queue: The queue to process.
        poll_interval: Seconds of the first wait when the queue has run dry.
        max_poll_interval: Seconds of the longest wait.
        concurrency: How many jobs run at once.
        queues: The queues to serve, in this order; all if not given.
        lease: Seconds within which the jobs of a dead worker run elsewhere.
        shutdown_timeout: Seconds that `stop()` gives to running jobs. The rest is handed back, which costs no attempt.
        stuck_after: Seconds after which a job without a timeout no longer counts against `concurrency`: it goes on, and
            another runs beside it; at most `concurrency` such jobs. An event loop that a job has blocked for as long is
            replaced. None for never.
        unknown_within: Seconds for which jobs whose type this worker cannot find are put off, for growing delays and
            without an attempt, since other workers may know the type, or will soon. Then they fail
            (docs/changing-jobs.md).
        middleware: Generator functions that run around each attempt of this worker, the outermost first
            (docs/middleware.md).
        imports: Modules to import, whose functions may be run.

    Raises:
        TypeError: A setting has the wrong type.
        ValueError: A setting is out of range.
    """

    _worker_thread: threading.Thread
    """The worker's thread. The attribute is missing before `start()`: the page's health check asks with `hasattr`."""

    def __init__(  # noqa: PLR0913 - the settings
        self,
        job_queue: JobQueue | AsyncJobQueue,
        poll_interval: float = 1.0,
        max_poll_interval: float = 10.0,
        *,
        concurrency: int = 1,
        queues: Sequence[str] | str | None = None,
        lease: float = 30.0,
        shutdown_timeout: float = 30.0,
        stuck_after: float | None = 3600.0,
        unknown_within: float = UNKNOWN_WITHIN,
        middleware: Iterable[Middleware] | Middleware = (),
        imports: Iterable[str] = (),
    ) -> None:
        if not isinstance(job_queue, JobQueue | AsyncJobQueue):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
            raise TypeError(f"job_queue={job_queue!r}: must be a JobQueue")
        self.job_queue = job_queue
        self.config = WorkerConfig.made(
            poll_interval=poll_interval,
            max_poll_interval=max_poll_interval,
            concurrency=concurrency,
            queues=queues,
            lease=lease,
            shutdown_timeout=shutdown_timeout,
            stuck_after=stuck_after,
            unknown_within=unknown_within,
            middleware=middleware,
            imports=imports,
        )
        self.worker_id = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self.error: BaseException | None = None
        """The error that ended the worker's thread; None if `stop()` did, or nothing has yet."""
        self._lock = threading.RLock()  # a signal's handler may call `stop` while `start` holds it
        self._supervisors: dict[threading.Thread, Supervisor] = {}
        """The supervisor of the worker's thread, and those of threads that a job blocks, which hold nothing else."""
        self._stopping = self._hastened = False

    def start(self) -> None:
        """Start the worker's daemon thread, and return at once.

        The thread connects, and goes on trying while the database is away. If the tables are missing or of another
        version, or the DSN is refused, it logs one line and ends; `error` says why.

        Raises:
            RuntimeError: This worker was started before (make a new one), or this is the process of a job.
            ConfigError: A module in `imports` cannot be imported.
        """
        with self._lock:
            if hasattr(self, "_worker_thread"):
                raise RuntimeError("this worker was started before: a worker starts once, make a new one")
            if Channel.is_here:  # each such process imports the script, which would start a worker there
                raise RuntimeError(
                    "no worker starts in the process of a job (executor='process'): the script is imported there, "
                    "so let it start its own under `if __name__ == '__main__':`"
                )
            import_modules(self.config.imports)
            self._start_thread()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self.run, name="dbjobq-worker", daemon=True)
        thread.start()
        self._worker_thread = thread

    def _replace(self) -> bool:
        """Go on in another thread, since a job blocks this one's event loop; tell whether that thread was started."""
        with self._lock:
            if self._stopping:
                return False
            lost = tuple(self._supervisors.values())
            try:
                self._start_thread()
            except RuntimeError:  # the system gives no more threads
                return False
            for supervisor in lost:
                supervisor.drain()
        return True

    def stop(self, timeout: float | None = None) -> None:
        """Claim no more, let the running jobs finish, hand back the rest, and end the thread.

        May be called any number of times, from any thread; before `start()` it does nothing.

        Args:
            timeout: Seconds to give to the running jobs; `shutdown_timeout` by default.
        """
        with self._lock:
            thread = getattr(self, "_worker_thread", None)
            self._stopping = thread is not None
        self._tell(hasten=False)
        if thread is None or threading.current_thread() in self._supervisors:
            return
        limit = self.config.shutdown_timeout if timeout is None else timeout
        if self._outlives(0.0 if self._hastened else limit):
            self.hasten()
            if self._outlives(5.0):  # for writing what was handed back, and no longer if the database does not answer
                emit(WORKER_STOP_TIMEOUT, worker=self.worker_id)

    def _outlives(self, seconds: float) -> bool:
        """Wait for the worker's threads to end; tell whether one still runs."""
        by = time.monotonic() + seconds
        threads: dict[threading.Thread, Supervisor | None] = {self._worker_thread: None, **self._supervisors}
        for thread, supervisor in threads.items():
            while thread.is_alive() and (supervisor is None or not supervisor.over) and time.monotonic() < by:
                thread.join(min(max(0.0, by - time.monotonic()), 0.1))
        return any(thread.is_alive() for thread in threads)

    def join(self) -> None:
        """Wait until the worker has ended: by `stop()`, or because it cannot go on, as `error` says.

        After `stop()` it has ended when no thread of its holds a job any more. Before `start()` this returns at once.
        """
        while (thread := getattr(self, "_worker_thread", None)) is not None and thread.is_alive():
            thread.join()
        while self.error is None and not all(it.over for it in tuple(self._supervisors.values())):
            time.sleep(0.1)  # no event says that a thread which a job blocks has nothing left to keep

    def hasten(self) -> None:
        """Hand back what runs at once; for a second signal while `stop()` waits. Returns at once."""
        self._stopping = self._hastened = True
        self._tell(hasten=True)

    def run(self) -> None:
        """Work until `stop()`. Called by `start()` in its thread; not to be called directly."""
        try:
            with event_loop() as loop:
                run_to_the_end(loop, self._main())
        except DBJobQError as error:
            self.error = error
            emit(WORKER_FAILED, worker=self.worker_id, error=str(error))
        except BaseException as error:
            self.error = error
            emit(WORKER_FAILED, exception=error, worker=self.worker_id, error=f"{type(error).__name__}: {error}")
        finally:
            settle(HOOKS_LAST)
            with self._lock:
                self._supervisors.pop(threading.current_thread(), None)

    async def _main(self) -> None:
        supervisor = Supervisor(self.config, self.job_queue.storage, self.worker_id, self._replace, DUTIES)
        with self._lock:
            self._supervisors[threading.current_thread()] = supervisor
            if self._stopping:
                supervisor.stop()
        emit(WORKER_STARTED, worker=self.worker_id)
        await supervisor.run()
        emit(WORKER_STOPPED, worker=self.worker_id)

    def _tell(self, *, hasten: bool) -> None:
        with self._lock:
            supervisors = tuple(self._supervisors.values())
        for supervisor in supervisors:
            supervisor.stop(hasten=hasten)

    def _running(self) -> list[Claim]:
        return [claim for supervisor in tuple(self._supervisors.values()) for claim in supervisor.running()]

    @property
    def current_job(self) -> Job | None:
        """The job that runs now, the longest running one if there are several; None while idle."""
        running = self._running()
        return min(running, key=lambda claim: claim.claimed_at).job(self.worker_id) if running else None

    @property
    def current_jobs(self) -> list[Job]:
        """All jobs that run now."""
        return [claim.job(self.worker_id) for claim in self._running()]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
