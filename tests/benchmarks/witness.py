"""A worker process of one system, and what its jobs tell (`peers.handlers`)."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final, Self

from tests.benchmarks.peers.handlers import EXPECTED, WITNESS

if TYPE_CHECKING:
    from tests.benchmarks.peers.system import Queue

TIMEOUT: Final = 300.0
"""Seconds that anything may take."""


class Witness:
    """Runs one; ends it with the block.

    Args:
        system: Whose worker it is.
        expected: How many `noop` jobs it will run.
    """

    def __init__(self, system: Queue, *, expected: int = 0) -> None:
        self._pipe, theirs = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.peers.worker", system.name, system.dsn, system.database],
            env={**os.environ, WITNESS: str(theirs), EXPECTED: str(expected)},
            pass_fds=[theirs],
        )
        os.close(theirs)
        self._name, self._unread, self._told = system.name, b"", dict[str, float]()

    def wait_for(self, word: str) -> float:
        """Wait until a job has told something; return when it did, by `time.monotonic`."""
        by = time.monotonic() + TIMEOUT
        while word not in self._told:
            readable, _, _ = select.select([self._pipe], [], [], max(0.0, by - time.monotonic()))
            new = os.read(self._pipe, 1 << 16) if readable else b""
            if not new:
                raise RuntimeError(f"the worker of {self._name} has ended, or is stuck, before {word!r}")
            *lines, self._unread = (self._unread + new).split(b"\n")
            self._told.update((told.decode(), float(at)) for told, at in map(bytes.split, lines))
        return self._told[word]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._pipe)
