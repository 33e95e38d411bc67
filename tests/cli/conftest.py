from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from pathlib import Path

TASKS: Final = """
import asyncio, os, re, threading, time
from pathlib import Path
from dbjobq import JobContext, job

@job
def add(a, b):
    return a + b

@job
def wait_for(file):
    Path("running").touch()
    while not Path(file).exists():
        time.sleep(0.01)
    return "saw it"

@job
async def takes(seconds):
    await asyncio.sleep(seconds)

@job
def stuck():
    Path("running").touch()
    threading.Event().wait()

@job
async def stuck_elsewhere():
    Path("running").touch()
    await asyncio.to_thread(threading.Event().wait)

@job
async def blocks():
    Path("running").touch()
    time.sleep(60)

@job(executor="process")
def apart(file=None):
    if file is None:
        return os.getppid()
    Path(file).write_text(str(os.getpid()))
    re.match(r"(a+)+$", "a" * 40 + "b")

@job(executor="process", max_retries=0)
def complain(ctx: JobContext):
    try:
        raise ValueError("complaint")
    except ValueError:
        ctx.logger.exception("caught")

@job(max_retries=0)
def crash():
    os._exit(7)
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A directory with a module of jobs, `tasks`."""
    (tmp_path / "tasks.py").write_text(TASKS)
    return tmp_path
