"""Workers in processes of their own, to be killed and paused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.handlers import DIARY

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]


class Note(NamedTuple):
    """A line of the diary that `handlers` write."""

    word: str
    job_id: str
    pid: int


class WorkerProcess:
    """One of them; see `runner`.

    Args:
        settings: What it is told, the address of its storage included.
        diary: The file in which its handlers write.
        log: The file for its log.
    """

    def __init__(self, settings: Mapping[str, Any], diary: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.runner", json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env={**os.environ, DIARY: str(diary)},
            )
        self.pid = self._process.pid

    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """SIGSTOP; returns when it stands still."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def resume(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def stop(self, timeout: float = 60.0) -> int:
        """Let it end as `Worker.stop` does; return its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(timeout)

    def close(self) -> None:
        """End it, whatever it does."""
        if self.alive():
            self.resume()
            self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def runs(pid: int) -> bool:
    """Tell whether a process is there, and no zombie."""
    with suppress(FileNotFoundError, ProcessLookupError):  # the second if it goes while it is read
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not Path("/proc/self").exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def read_diary(path: Path) -> list[Note]:
    """What the handlers did, in order."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Note(word, job_id, int(pid)) for word, job_id, pid in map(str.split, lines)]
