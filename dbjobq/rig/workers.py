"""The worker processes of a run, and how to start, freeze and kill them."""

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
"""Seconds that a worker may take to start, or to stop."""


class WorkerProcess(Protocol):
    """A `dbjobq worker` in a process of its own."""

    pid: int

    def wait_ready(self, timeout: float) -> bool:
        """Wait until the process works; False if it ended before."""
        ...

    def wait(self, timeout: float) -> int:
        """Wait until the process has ended, and return its exit code."""
        ...

    def stop(self) -> None:
        """Tell the process to end."""
        ...

    def kill(self) -> None:
        """Kill the process."""
        ...


StartWorker = Callable[[Sequence[str], Mapping[str, str]], WorkerProcess]
"""Starts a worker process, given its arguments and additions to its environment."""


class Workers:
    """The worker processes; none outlives the `with` block.

    Args:
        start: Starts one process.
    """

    def __init__(self, start: Callable[[], WorkerProcess]) -> None:
        self._start = start
        self._processes: list[WorkerProcess] = []

    def start(self, count: int) -> None:
        """Start `count` more processes, and wait until they work.

        Raises:
            DBJobQError: A process ended instead; it has said why.
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
        """Stop the first process for a block, so that its jobs can be looked at; it may be killed meanwhile."""
        process = self._processes[0]
        os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            if process in self._processes:
                os.kill(process.pid, signal.SIGCONT)

    def kill_first(self) -> None:
        """End the first process with SIGKILL."""
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
