"""A socket between a worker process and the process that started it.

The worker says through it that it is ready; when the other end closes, even because the parent was killed with
-9, the worker stops as if it had been told to. Its number is handed over as `--lifeline`.
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

__all__ = ["Lifeline", "WorkerProcess"]


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
        with suppress(OSError):  # the parent is gone; `when_cut` will say so
            self._socket.sendall(b"r")

    def when_cut(self, call: Callable[[], None]) -> None:
        """Make a call, in a thread, when the parent is gone."""

        def watch() -> None:
            with suppress(OSError):  # the parent went without having read what was sent
                self._socket.recv(1)
            call()

        threading.Thread(target=watch, name="dbjobq-lifeline", daemon=True).start()


class WorkerProcess:
    """The parent's end: a `dbjobq worker` in a process of its own, which does not outlive this one.

    Args:
        arguments: What follows `dbjobq worker`.
        environment: Variables that it is to have beyond this process's; where the database is, for one.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
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
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._process.kill()
