"""How the tests of the command line run it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from click.testing import CliRunner, Result

from dbjobq.cli import main
from tests.support.process import runs

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

TIMEOUT: Final = 120.0
"""Seconds that anything may take; far more than it does, also beside other tests on a slow machine."""


def invoke(dsn: str | None, *args: str, stdin: str = "") -> Result:
    """Run a command in this process, with no settings but this DSN."""
    unset = dict.fromkeys(("DATABASE_URL", "DBJOBQ_SCHEMA", "DBJOBQ_LISTEN_DSN"))
    return CliRunner().invoke(main, args, input=stdin, env={**unset, "DBJOBQ_DSN": dsn})


def on_a_terminal(dsn: str, columns: int, *args: str, code: int | None = 0) -> list[str]:
    """Run `dbjobq …` on a terminal of so many columns; return what it prints there, by lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {**os.environ, "DBJOBQ_DSN": dsn, "DATABASE_URL": "", "COLUMNS": "", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen([sys.executable, "-m", "dbjobq", *args], env=env, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # what Linux says where the other end is closed
            while some := os.read(ours, 65536):
                said += some
        os.close(ours)
        assert process.wait(TIMEOUT) == code or code is None, said
    return said.decode().replace("\r\n", "\n").rstrip("\n").split("\n")


def eventually(condition: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
    """Return what the condition returns, once that is true."""
    by = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < by, f"waited {timeout} s in vain for {condition}"
        time.sleep(0.01)
    return found


class Process:
    """A `dbjobq …` in a process of its own, in a directory with jobs in it; what it says goes to a file."""

    def __init__(
        self, directory: Path, dsn: str, args: tuple[str, ...], env: Mapping[str, str], module: tuple[str, ...]
    ) -> None:
        self._log = directory / f"log-{time.monotonic_ns()}"
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", *module, *args],
                cwd=directory,
                env={**os.environ, "DBJOBQ_DSN": dsn, "DATABASE_URL": "", **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # As from a terminal, also where the tests themselves run in the background and ignore it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            )

    @property
    def log(self) -> str:
        """All that it, and what it has started, have said so far."""
        return self._log.read_text()

    def says(self, what: str, times: int = 1) -> None:
        """Wait until it has said something."""
        eventually(lambda: self.log.count(what) >= times or self._ended_silent(what))

    def _ended_silent(self, what: str) -> bool:
        assert self.popen.poll() is None, f"it ended with {self.popen.returncode}, without {what!r}:\n{self.log}"
        return False

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.popen.send_signal(number)

    def exit_code(self, timeout: float = TIMEOUT) -> int:
        """Wait until it has ended."""
        return self.popen.wait(timeout)

    def pids(self) -> list[int]:
        """The ids of the worker processes that have said they work, or wait for the server, in that order."""
        said = (
            line for line in self.log.splitlines() if " worker.serving " in line or " database.unavailable " in line
        )
        return [int(pid[1]) for line in said if (pid := re.search(r" pid=(\d+)$", line))]


@contextlib.contextmanager
def started(
    directory: Path, dsn: str, *args: str, module: tuple[str, ...] = ("dbjobq",), **env: str
) -> Generator[Process]:
    """Start `dbjobq …`; end it, and what it has started, with the block."""
    process = Process(directory, dsn, args, env, module)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.wait()
        all_gone(process.pids())


def all_gone(pids: list[int]) -> None:
    """Wait until these processes have ended."""
    eventually(lambda: not any(map(runs, pids)))
