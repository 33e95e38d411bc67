"""Several worker processes under one parent, which replaces those that crash or, if asked to, have old code.

The parent touches neither the database nor the jobs' modules. The first process goes ahead: the others are started when
it is ready, so that an error which all of them would meet is printed once. All events arrive in one queue, `_events`;
only `run` changes the parent's state.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from dbjobq.cli.serving.lifeline import TOLD, WorkerProcess
from dbjobq.cli.serving.signals import Events
from dbjobq.errors import ConfigError
from dbjobq.events.bus import emit
from dbjobq.events.names import (
    PROCESS_DIED,
    PROCESS_KILLED,
    PROCESS_RELOADING,
    PROCESS_STOPPING,
    PROCESS_WAITING,
)
from dbjobq.signals import STOP_SIGNALS, on_stop_signals

__all__ = ["Processes", "restart_delay", "watch_python_files"]

FIRST_RESTART_DELAY: Final = 0.5
"""Seconds before a crashed process is replaced, the first time."""
LONGEST_RESTART_DELAY: Final = 30.0
"""Seconds to which these delays grow."""
STEADY: Final = 30.0
"""Seconds after which a crash does not count as one more in a row."""
FAILED_STARTS: Final = 5
"""How many failed starts in a row, with no process at work, end the parent."""
KILL_AFTER: Final = 15.0
"""Seconds beyond the shutdown timeout after which a process is killed."""


def restart_delay(crashes: int, chance: float) -> float:
    """Return the seconds to wait before a crashed process is replaced.

    Args:
        crashes: How many crashes there have been in a row; at least 1.
        chance: A random number from [0, 1), so that parents on many machines do not act at the same moment.
    """
    return min(FIRST_RESTART_DELAY * 2.0 ** min(crashes - 1, 16), LONGEST_RESTART_DELAY) * (1 - chance / 2)


class Stop(NamedTuple):
    """A signal came."""


class Ready(NamedTuple):
    """A process has started to work."""

    child: WorkerProcess


class Ended(NamedTuple):
    """A process is gone."""

    child: WorkerProcess
    code: int


class Changed(NamedTuple):
    """Files were changed."""

    paths: Sequence[str]


Event = Stop | Ready | Ended | Changed


class _Child:
    """The parent's record of one process."""

    def __init__(self, now: float) -> None:
        self.started_at = now
        self.ready = False
        self.kill_at: float | None = None
        """The moment at which the process is killed, since it was told to end; None before that."""
        self.killed = False


class Processes:
    """The parent of several worker processes.

    Args:
        arguments: The words that follow `dbjobq worker`, for each process.
        environment: Variables to add to each process's environment.
        size: How many processes to run.
        shutdown_timeout: Seconds that each process gives its jobs when it stops.
        changes: Files as they change, for --reload; None to keep the code that was started. With --reload, a process
            that cannot start does not end the parent, which waits for the next change.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        size: int,
        shutdown_timeout: float,
        changes: Iterator[Sequence[str]] | None = None,
    ) -> None:
        self._spawn: Callable[[], WorkerProcess] = lambda: WorkerProcess(arguments, environment)
        self._size, self._grace, self._changes = size, shutdown_timeout + KILL_AFTER, changes
        self._events: Events[Event] = Events()
        self._children: dict[WorkerProcess, _Child] = {}
        self._start_at = 0.0
        self._crashes = self._failed_starts = 0
        self._was_ready = self._stopping = False
        self._code = 0

    def run(self) -> int:
        """Work until a signal comes, or no process can be started.

        Returns:
            The exit code: 0 after a signal, 1 if the processes keep failing.
        """
        on_stop_signals(lambda: self._events.put(Stop()))
        if self._changes is not None:
            self._in_thread(self._watch, self._changes)
        while not self._stopping or self._children:
            self._fill()
            if (event := self._events.get(self._patience())) is not None:
                self._handle(event)
            self._kill_overdue()
        return self._code

    def _handle(self, event: Event) -> None:
        match event:
            case Stop():
                emit(PROCESS_STOPPING, processes=len(self._children))
                self._stop()
            case Ready(child):
                self._children[child].ready = self._was_ready = True
                self._failed_starts = 0
            case Ended(child, code):
                self._ended(child, self._children.pop(child), code)
            case Changed(paths):
                emit(PROCESS_RELOADING, changed=", ".join(paths))
                self._start_at = 0.0
                self._tell_all()

    def _fill(self) -> None:
        """Start the missing processes: one while none is ready, then the rest."""
        wanted = self._size if self._at_work() else 1
        while not self._stopping and time.monotonic() >= self._start_at and len(self._children) < wanted:
            process = self._spawn()
            self._children[process] = _Child(time.monotonic())
            self._in_thread(self._follow, process)

    def _ended(self, process: WorkerProcess, child: _Child, code: int) -> None:
        if self._stopping or child.kill_at is not None:
            return
        now = time.monotonic()
        self._crashes = 1 if now - child.started_at > STEADY else self._crashes + 1
        told = code == TOLD or -code in STOP_SIGNALS  # a service manager may tell this process at the same moment
        if not (child.ready or told) and self._hopeless():
            self._code = max(code, 1)
            self._stop()
            return
        if not (child.ready or told) and self._changes is not None:
            self._start_at = float("inf")
            emit(PROCESS_WAITING, pid=process.pid, why="a file has to change first")
            return
        delay = restart_delay(self._crashes, random.random())  # noqa: S311 - spread, not secrecy
        self._start_at = now + delay
        emit(PROCESS_DIED, pid=process.pid, code=code, restart_in=round(delay, 2))

    def _hopeless(self) -> bool:
        """Count a process that could not start, and has said why; tell whether to give up."""
        self._failed_starts += 1
        if self._changes is not None:
            return False
        in_vain = self._failed_starts >= FAILED_STARTS and not self._at_work()
        return in_vain or not self._was_ready

    def _at_work(self) -> bool:
        return any(child.ready and child.kill_at is None for child in self._children.values())

    def _stop(self) -> None:
        self._stopping = True
        self._tell_all()

    def _tell_all(self) -> None:
        """Tell each process to end; at the second time it hands back its running jobs."""
        for process, child in self._children.items():
            child.kill_at = child.kill_at or time.monotonic() + self._grace
            process.stop()

    def _kill_overdue(self) -> None:
        for process, child in self._children.items():
            if child.kill_at is not None and not child.killed and time.monotonic() >= child.kill_at:
                child.killed = True
                emit(PROCESS_KILLED, pid=process.pid, why="it did not end in time")
                process.kill()

    def _patience(self) -> float:
        """Return the seconds until something has to be done."""
        now = time.monotonic()
        times = [child.kill_at for child in self._children.values() if child.kill_at is not None and not child.killed]
        if not self._stopping and now < self._start_at < float("inf"):
            times.append(self._start_at)
        return max(0.01, min(times) - now) if times else float("inf")

    # Threads: each waits for something, and puts an event.

    @staticmethod
    def _in_thread(call: Callable[..., None], *args: object) -> None:
        threading.Thread(target=call, args=args, name="dbjobq-processes", daemon=True).start()

    def _follow(self, process: WorkerProcess) -> None:
        if process.wait_ready():
            self._events.put(Ready(process))
        self._events.put(Ended(process, process.wait()))

    def _watch(self, changes: Iterator[Sequence[str]]) -> None:
        for paths in changes:
            self._events.put(Changed(paths))


def watch_python_files(directory: Path) -> Iterator[Sequence[str]]:
    """Yield the Python files that change below a directory, whenever some do.

    Raises:
        ConfigError: The package that watches them is not installed.
    """
    try:
        from watchfiles import PythonFilter, watch
    except ImportError:
        raise ConfigError("--reload needs watchfiles: pip install 'dbjobq[reload]'") from None

    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # the parent logs the changes itself
    changes = watch(directory, watch_filter=PythonFilter(), raise_interrupt=False)
    return (sorted({str(Path(path).relative_to(directory)) for _, path in found}) for found in changes)
