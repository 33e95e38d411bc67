"""The demo's jobs. Its workers are `dbjobq worker dbjobq.demo.jobs`."""

from __future__ import annotations

import hashlib
import keyword
import os
import re
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypedDict

from dbjobq.jobs.context import JobContext
from dbjobq.jobs.registry import job

__all__ = ["RUNS", "Facts", "facts_of", "ping", "survey"]

RUNS: Final = "DBJOBQ_DEMO_RUNS"
"""The variable that names the directory in which workers note each job they run: a witness besides the database."""

MOST_USED: Final = 100
"""How many identifiers of each file are counted."""

_IDENTIFIER: Final = re.compile(r"[^\W\d]\w{2,}")


class Facts(TypedDict):
    """The facts about one file."""

    digest: str
    size_bytes: int
    lines: int
    words: int
    identifiers: dict[str, int]


@job(name="dbjobq.demo.jobs.survey", max_retries=5)
def survey(ctx: JobContext, path: str) -> Facts:
    """Read one file and return its facts, which the queue keeps as the job's result."""
    with _noted(ctx.job.id):
        return facts_of(Path(path))


@job(name="dbjobq.demo.jobs.ping", priority=10)
def ping() -> None:
    """Do nothing: only how soon this job starts is measured."""


def facts_of(path: Path) -> Facts:
    """Read a file and return the facts about it."""
    content = path.read_bytes()
    text = content.decode("utf-8", "replace")
    counts = Counter(_IDENTIFIER.findall(text))
    for word in keyword.kwlist:
        counts.pop(word, None)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {
        "digest": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "lines": len(text.splitlines()),
        "words": len(text.split()),
        "identifiers": dict(ranked[:MOST_USED]),
    }


@contextmanager
def _noted(job_id: str) -> Generator[None]:
    """Write the job's beginning and its end into this worker's file."""
    directory = os.environ.get(RUNS)
    if directory is None:
        yield
        return
    with Path(directory, str(os.getpid())).open("a", encoding="ascii") as notes:
        notes.write(f"begun {job_id}\n")
        notes.flush()
        yield
        notes.write(f"ended {job_id}\n")
