"""docs/workers.md: its Python blocks run as they stand, and its table of settings is true of class and command."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import click
import pytest

from dbjobq import Job, Worker
from dbjobq.cli import main
from tests.support.page import ROOT, python_blocks
from tests.support.waiting import ended, until

TEXT = (ROOT / "docs/workers.md").read_text()


@pytest.fixture
def page(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The names that the page's blocks leave, one after the other."""
    monkeypatch.setenv("DBJOBQ_DSN", dsn)
    monkeypatch.setitem(sys.modules, "shop.jobs", ModuleType("shop.jobs"))
    names: dict[str, Any] = {"__name__": "workers_page"}
    for block in python_blocks("docs/workers.md"):
        exec(compile(block, "docs/workers.md", "exec"), names)
    yield names
    names["queue"].close()


def rows() -> dict[str, tuple[str, str]]:
    """The table of settings: of each argument, the option and the default."""
    lines = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|", TEXT, re.MULTILINE)
    return {name: (option, default) for name, option, default in lines}


def test_the_job_of_the_first_example_runs(page: dict[str, Any]) -> None:
    queue = page["queue"]
    (waiting,) = queue.list_jobs()  # its program ends at once; perhaps before the worker came to it
    with Worker(queue):
        ended(queue, [waiting.id])
    assert queue.get_job(waiting.id).result == "receipt for order 17"


def test_the_table_has_every_setting_of_the_class_with_its_default() -> None:
    parameters = dict(inspect.signature(Worker).parameters)
    assert list(rows()) == list(parameters)[1:]
    said = {name: default for name, (_, default) in rows().items()}
    assert said == {
        name: {None: "all", (): "none"}.get(p.default, str(p.default)) for name, p in list(parameters.items())[1:]
    }


def test_the_table_has_every_option_of_the_command() -> None:
    (table,) = re.findall(r"(?:^\|.*\n)+", TEXT[: TEXT.index("### `concurrency`")], re.MULTILINE)
    assert isinstance(main, click.Group)
    command = main.get_command(click.Context(main), "worker")
    assert command is not None
    options = {name for p in command.params for name in p.opts if name.startswith("--") and not getattr(p, "hidden", 0)}
    assert options - set(re.findall(r"--[\w-]+", table)) == set()


def test_the_program_of_the_page_ends_at_sigterm(page: dict[str, Any]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    page["told_to_stop"].clear()

    def kill() -> None:
        until(lambda: any(thread.name == "dbjobq-worker" for thread in threading.enumerate()))
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert page["main"]() == 0
    finally:
        killer.join()
        signal.signal(signal.SIGTERM, before)


def test_the_program_ends_with_a_worker_that_cannot_go_on(page: dict[str, Any], databases: Any) -> None:
    with databases.fresh("template0") as empty:
        worker = Worker(page["JobQueue"](empty))
        worker.start()
        page["end_with"](worker).join(60)
        assert page["told_to_stop"].is_set()
        assert "dbjobq migrate" in str(worker.error)


def test_the_lifespan_of_the_page_runs_jobs_while_it_lasts(page: dict[str, Any]) -> None:
    async def serve() -> Job:
        async with page["lifespan"](None):
            job_id = page["queue"].enqueue(page["send_receipt"], order=18)
            await asyncio.to_thread(ended, page["queue"], [job_id])
        found: Job = page["queue"].get_job(job_id)
        return found

    assert asyncio.run(serve()).result == "receipt for order 18"


def test_the_job_with_a_context_does_what_the_page_says(page: dict[str, Any]) -> None:
    queue = page["queue"]
    with Worker(queue) as worker:
        job_id = queue.enqueue(page["resize_all"], paths=["a", "b"])
        until(lambda: queue.stats()["completed"] == 4)
        assert page["what_runs"](worker) == []
    assert queue.get_job(job_id).result == 2
