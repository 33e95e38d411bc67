"""Plays the console blocks of a page: runs its commands, and compares what they print with what the page shows."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

__all__ = ["TIMEOUT", "Console"]

TIMEOUT: Final = 120.0
"""Seconds that a command may take."""
COLUMNS: Final = 200
"""How wide the reader's terminal is: nothing is folded that the page does not fold."""

ID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
VARIES: Final = re.compile(
    rf"(?P<id>{ID})"
    r"|(?P<time>\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)|\d{4}-\d\d-\d\d [\d:]+Z)"
    r"|(?P<worker>[\w.-]+:\d+:[0-9a-f]{6})"
    r"|(?P<clock>\d\d:\d\d:\d\d\.\d{3}Z)"
    r"|(?P<pid>(?<=pid=)\d+)"
    r"|(?P<left_out>…)"
)
"""What is another at each run; `…` is what the page leaves out, and alone on a line any number of lines."""
FORMS: Final = {
    "id": ID,
    "time": r"\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z|\+00:00)",
    "clock": r"[\d:.]{12}Z",
    "worker": r"[\w.-]+:\d+:[0-9a-f]{6}",
    "pid": r"\d+",
    "left_out": r".*",
}


class Console:
    """A reader at a terminal who types what stands behind each `$ ` of a page, in this directory.

    Args:
        directory: Where the commands are run.
        env: Variables for them, beside this process's own.
    """

    def __init__(self, directory: Path, env: Mapping[str, str]) -> None:
        self._directory = directory
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._env = {**os.environ, "PATH": path, "COLUMNS": "", **env}
        self._ids: dict[str, str] = {}
        """Ids of jobs: as the page has them → as they are."""

    def play(self, block: str) -> None:
        """Run a block's commands one after the other; each must print what the page shows."""
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            self._run(re.sub(ID, lambda found: self._ids.get(found[0], found[0]), command), shown)

    def _run(self, command: str, shown: str) -> None:
        before, interrupted, after = shown.partition("^C\n")
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}" if interrupted else command],
            cwd=self._directory,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            # As from a terminal, also where the tests themselves run in the background and ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        os.close(theirs)
        try:
            said = ""
            if interrupted:
                said = self._read(ours, lambda said: re.fullmatch(self._pattern(before), said) is not None)
                process.send_signal(signal.SIGINT)
            said += self._read(ours, lambda _: False)
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        found = re.fullmatch(self._pattern(before + after), said)
        assert found, f"$ {command}\nprints\n{said}\nand the page shows\n{shown}"
        self._learn(before + after, found)

    @staticmethod
    def _read(terminal: int, enough: Callable[[str], bool]) -> str:
        """Read until it is enough, or until the command has ended."""
        said, by = b"", time.monotonic() + TIMEOUT
        while not (said.endswith(b"\n") and enough(_text(said))):
            ready, _, _ = select.select([terminal], [], [], max(0.0, by - time.monotonic()))
            assert ready, f"nothing came for {TIMEOUT:g} s after\n{_text(said)}"
            try:
                more = os.read(terminal, 65536)
            except OSError:  # what Linux says where the other end is closed
                break
            if not more:
                break
            said += more
        return _text(said)

    def _pattern(self, shown: str) -> str:
        lines = (r"(?:.*\n)*?" if line == "…\n" else self._line(line) for line in shown.splitlines(keepends=True))
        return "".join(lines)

    def _line(self, line: str) -> str:
        pattern, end = "", 0
        for found in VARIES.finditer(line):
            known = self._ids.get(found[0])
            kind = str(found.lastgroup)
            form = re.escape(known) if known else FORMS[kind]
            pattern += re.escape(line[end : found.start()]) + (f"({form})" if kind == "id" else form)
            end = found.end()
        return pattern + re.escape(line[end:])

    def _learn(self, shown: str, found: re.Match[str]) -> None:
        self._ids.update(zip(re.findall(ID, shown), found.groups(), strict=True))


def _text(said: bytes) -> str:
    return said.decode(errors="replace").replace("\r\n", "\n")
