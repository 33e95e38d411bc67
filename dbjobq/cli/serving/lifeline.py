"""A socket between a worker process and the process that started it.

Through the socket the worker says that it is ready, and is told to stop. When the other end closes, even because the
parent was killed with -9, the worker stops as if it had been told to. The socket's number is handed over as
`--lifeline`.

Each word to stop counts: at the second the worker hands back its running jobs. Signals count as one, however many come:
a service manager sends them to every process of a service, and the parent passes its own on.
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
"""The exit code of a worker that was told to stop before it worked, unlike one that could not start."""


class Lifeline:
    """The worker's end of the lifeline.

    Args:
        inherited: The socket that the parent has handed over.
    """

    def __init__(self, inherited: socket.socket) -> None:
        self._socket = inherited
        self._socket.set_inheritable(False)  # programs that jobs start must not hold it open

    def ready(self) -> None:
        """Tell the parent that this worker works."""
        with suppress(OSError):  # the parent is gone; `listen` notices
            self._socket.sendall(b"r")

    def listen(self, *, on_stop: Callable[[], None], on_cut: Callable[[], None]) -> None:
        """Call, in a thread, `on_stop` whenever the parent says to stop, and `on_cut` when the parent is gone."""

        def watch() -> None:
            with suppress(OSError):  # the parent ended without having read everything
                while said := self._socket.recv(16):
                    for _ in said:
                        on_stop()
            on_cut()

        threading.Thread(target=watch, name="dbjobq-lifeline", daemon=True).start()


class WorkerProcess:
    """The parent's end: a `dbjobq worker` in a process of its own, which does not outlive this one.

    Args:
        arguments: The words that follow `dbjobq worker`.
        environment: Variables in addition to this process's own; those that name the database, for example.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs, held_back():
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "dbjobq", "worker", *arguments, "--lifeline", str(theirs.fileno())],
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,  # a Ctrl-C in the terminal reaches the parent alone, which passes it on
            )
        self.pid = self._process.pid

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until the worker works; False if it ended before that. Raises TimeoutError."""
        self._socket.settimeout(timeout)
        try:
            return self._socket.recv(1) == b"r"
        except ConnectionResetError:  # the worker ended without having read everything
            return False

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the process has ended; return its exit code, or the negative number of the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: The process has not ended in time.
        """
        code = self._process.wait(timeout)
        self._socket.close()
        return code

    def stop(self) -> None:
        """Tell the worker to finish its running jobs and end; a second time, to hand them back."""
        with suppress(OSError):  # the worker is gone
            self._socket.sendall(b"s")
        self._process.send_signal(signal.SIGTERM)  # the worker may not listen to the socket yet

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()
