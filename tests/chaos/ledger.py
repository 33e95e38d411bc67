"""What producers and workers do, written down before and after they do it: a file of JSON lines for each process.

A line is one `write`; what a process that is killed had not begun is not there, and of what it was about to write there
may be a part, which does not count. Times are the machine's clock, which is the server's, too.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

__all__ = ["FOLDER", "Book", "Call", "Execution", "Ledger", "read", "whole_lines"]

FOLDER: Final = "DBJOBQ_CHAOS_LEDGER"
"""The environment variable that names the folder."""


class Book:
    """This process's file."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        path = Path(os.environ[FOLDER]) / f"{self.pid}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, what: str, **fields: Any) -> None:
        """Add a line; it is in the file when this returns."""
        os.write(self._file, json.dumps({"what": what, "at": time.time(), "pid": self.pid, **fields}).encode() + b"\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An enqueue, as its producer saw it."""

    number: str
    kind: str
    """`one`, `keyed`, `own id`, `bulk`, `commit` or `rollback`: what is promised depends on it."""
    tags: tuple[str, ...]
    """What tells its jobs apart: an argument of each."""
    at: float
    pid: int
    key: str | None = None
    ids: tuple[str, ...] | None = None
    """What was acknowledged, and None if nothing was."""
    answered: float | None = None
    rolled_back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One run of a job's function."""

    run: str
    job: str
    attempt: int
    """Attempts that had failed before."""
    worker: str
    pid: int
    start: float
    end: float | None = None
    how: str | None = None
    """`returned`, or the type of what it raised; None if it did not end: its process was killed."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """All that was written down."""

    calls: tuple[Call, ...] = ()
    executions: tuple[Execution, ...] = ()
    pids: frozenset[int] = field(default=frozenset())


def read(folder: Path) -> Ledger:
    """Read the files of all processes."""
    calls: dict[str, Call] = {}
    runs: dict[str, Execution] = {}
    pids: set[int] = set()
    for line in _lines(folder.glob("*.jsonl")):
        pids.add(line["pid"])
        at = line["at"]
        match line["what"]:
            case "intent":
                calls[line["call"]] = Call(
                    number=line["call"],
                    kind=line["kind"],
                    tags=tuple(line["tags"]),
                    at=at,
                    pid=line["pid"],
                    key=line["key"],
                )
            case "acknowledged":
                calls[line["call"]] = replace(calls[line["call"]], ids=tuple(line["ids"]), answered=at)
            case "rolled back":
                calls[line["call"]] = replace(calls[line["call"]], rolled_back=True)
            case "start":
                runs[line["run"]] = Execution(
                    run=line["run"],
                    job=line["job"],
                    attempt=line["attempt"],
                    worker=line["worker"],
                    pid=line["pid"],
                    start=at,
                )
            case "end":
                runs[line["run"]] = replace(runs[line["run"]], end=at, how=line["how"])
            case _:  # an error: the call is not acknowledged
                pass
    return Ledger(tuple(calls.values()), tuple(sorted(runs.values(), key=lambda run: run.start)), frozenset(pids))


def _lines(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        yield from map(json.loads, whole_lines(path))


def whole_lines(path: Path) -> Iterator[str]:
    """Yield a file's lines, but not one whose writer was killed before its end."""
    with path.open() as file:
        yield from (line for line in file if line.endswith("\n"))
