"""Plays the console blocks of a page: runs its commands, and compares what they print with what the page shows."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["TIMEOUT", "Console"]

TIMEOUT: Final = 120.0
"""Seconds that a command may take."""

ID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
VARIES: Final = re.compile(
    rf"(?P<id>{ID})"
    r"|(?P<time>\d{4}-\d\d-\d\dT[\d:.]+(?:Z|\+00:00)|\d{4}-\d\d-\d\d [\d:]+Z)"
    r"|(?P<worker>[\w.-]+:\d+:[0-9a-f]{6})"
    r"|(?P<pid>(?<=pid=)\d+)"
    r"|(?P<left_out>…)"
)
"""What is another at each run; `…` is what the page leaves out, and alone on a line any number of lines."""
FORMS: Final = {
    "id": ID,
    "time": r"\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z|\+00:00)",
    "worker": r"[\w.-]+:\d+:[0-9a-f]{6}",
    "pid": r"\d+",
    "left_out": r".*",
}


class Console:
    """A reader who types what stands behind each `$ ` of a page, in this directory.

    Args:
        directory: Where the commands are run.
        env: Variables for them, beside this process's own.
    """

    def __init__(self, directory: Path, env: Mapping[str, str]) -> None:
        self._directory = directory
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._env = {**os.environ, "PATH": path, "COLUMNS": "200", **env}
        self._ids: dict[str, str] = {}
        """Ids of jobs: as the page has them → as they are."""

    def play(self, block: str) -> None:
        """Run a block's commands one after the other; each must print what the page shows."""
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            self._run(re.sub(ID, lambda found: self._ids.get(found[0], found[0]), command), shown)

    def _run(self, command: str, shown: str) -> None:
        before, interrupted, after = shown.partition("^C\n")
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}" if interrupted else command],
            cwd=self._directory,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # As from a terminal, also where the tests themselves run in the background and ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        with process:
            try:
                said = self._until(process, before) if interrupted else ""
                process.send_signal(signal.SIGINT) if interrupted else None
                said += process.communicate(timeout=TIMEOUT)[0].decode()
            finally:
                process.kill()
        found = re.fullmatch(self._pattern(before + after), said)
        assert found, f"$ {command}\nprints\n{said}\nand the page shows\n{shown}"
        self._learn(before + after, found)

    def _until(self, process: subprocess.Popen[bytes], shown: str) -> str:
        """Read until what the page shows has come."""
        assert process.stdout is not None
        said, by = b"", time.monotonic() + TIMEOUT
        while not re.fullmatch(self._pattern(shown), said.decode()):
            line = process.stdout.readline()
            assert line, f"it ended after\n{said.decode()}\nand the page shows\n{shown}"
            assert time.monotonic() < by, said.decode()
            said += line
        return said.decode()

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
