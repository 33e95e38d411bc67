"""Worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Protocol, Self

from dbjobq.errors import DBJobQError

__all__ = ["StartWorker", "WorkerProcess", "Workers"]

TIMEOUT: Final = 30.0
"""Seconds a worker may take to start, or to stop."""


class WorkerProcess(Protocol):
    """A `dbjobq worker` in a process of its own."""

    pid: int

    def wait_ready(self, timeout: float) -> bool:
        """Wait until it works; False if it ended before."""
        ...

    def wait(self, timeout: float) -> int:
        """Wait until it has ended, and return its exit code."""
        ...

    def stop(self) -> None:
        """Tell it to end."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


StartWorker = Callable[[Sequence[str], Mapping[str, str]], WorkerProcess]
"""Starts one, given its arguments and additions to its environment."""


class Workers:
    """The worker processes; none outlives the `with` block.

    Args:
        start: Starts one.
    """

    def __init__(self, start: Callable[[], WorkerProcess]) -> None:
        self._start = start
        self._processes: list[WorkerProcess] = []

    def start(self, count: int) -> None:
        """Start some more, and wait until they work.

        Raises:
            DBJobQError: One does not; it has said why.
        """
        new = [self._start() for _ in range(count)]
        self._processes += new
        for process in new:
            if not process.wait_ready(TIMEOUT):
                raise DBJobQError(f"worker process {process.pid} did not start")

    def first(self) -> int:
        """Return the id of the process that was started first."""
        return self._processes[0].pid

    @contextmanager
    def first_frozen(self) -> Generator[None]:
        """Hold the first one still, so that one can look at what it is doing; it may be killed meanwhile."""
        process = self._processes[0]
        os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            if process in self._processes:
                os.kill(process.pid, signal.SIGCONT)

    def kill_first(self) -> None:
        """End the first one with SIGKILL."""
        process = self._processes.pop(0)
        process.kill()
        process.wait(TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            process.stop()
        for process in self._processes:
            try:
                process.wait(TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(TIMEOUT)
