"""A socket between a worker process and the process that started it.

The worker says through it that it is ready, and is told to stop; when the other end closes, even because the parent was
killed with -9, the worker stops as if it had been told to. Its number is handed over as `--lifeline`.

What is said here counts: the second time it hands back what runs. Signals tell that it is to stop, however many come: a
service manager sends them to every process of a service, and the parent has them passed on.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from dbjobq.signals import held_back

__all__ = ["TOLD", "Lifeline", "WorkerProcess"]

TOLD: Final = 3
"""The exit code of a worker that was told to stop before it worked: not that it could not."""


class Lifeline:
    """The worker's end.

    Args:
        inherited: The socket that the parent has handed over.
    """

    def __init__(self, inherited: socket.socket) -> None:
        self._socket = inherited
        self._socket.set_inheritable(False)  # what jobs start must not hold it open

    def ready(self) -> None:
        """Tell the parent that this worker works."""
        with suppress(OSError):  # the parent is gone; `listen` will say so
            self._socket.sendall(b"r")

    def listen(self, *, on_stop: Callable[[], None], on_cut: Callable[[], None]) -> None:
        """Make calls, in a thread: whenever the parent says to stop, and when it is gone."""

        def watch() -> None:
            with suppress(OSError):  # the parent went without having read what was sent
                while said := self._socket.recv(16):
                    for _ in said:
                        on_stop()
            on_cut()

        threading.Thread(target=watch, name="dbjobq-lifeline", daemon=True).start()


class WorkerProcess:
    """The parent's end: a `dbjobq worker` in a process of its own, which does not outlive this one.

    Args:
        arguments: What follows `dbjobq worker`.
        environment: Variables that it is to have beyond this process's; where the database is, for one.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs, held_back():
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "dbjobq", "worker", *arguments, "--lifeline", str(theirs.fileno())],
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,  # a Ctrl-C in the terminal is the parent's, who passes it on
            )
        self.pid = self._process.pid

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until it works; False if it ended before that. Raises TimeoutError."""
        self._socket.settimeout(timeout)
        try:
            return self._socket.recv(1) == b"r"
        except ConnectionResetError:  # it ended without having read what was sent
            return False

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; return its exit code, or the negative number of the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: It has not.
        """
        code = self._process.wait(timeout)
        self._socket.close()
        return code

    def stop(self) -> None:
        """Tell it to finish what runs and to end; a second time, to hand back what runs."""
        with suppress(OSError):  # it is gone
            self._socket.sendall(b"s")
        self._process.send_signal(signal.SIGTERM)  # it may not listen yet

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._process.kill()
