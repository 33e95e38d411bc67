"""What a worker logs of jobs: at which level, with what, and whatever the jobs' modules do to logging."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
import logging.config
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbjobq import JobContext, JobQueue, job
from dbjobq.events.loggers import name_job
from tests.support.looking import get
from tests.support.waiting import ended, until
from tests.worker.conftest import Events, Start

pytestmark = pytest.mark.every_storage

KINDS = pytest.mark.parametrize("kind", ["def", "async"])


@KINDS
def test_a_dead_letter_is_an_error_with_its_exception(start: Start, queue: JobQueue, events: Events, kind: str) -> None:
    @job(retry=0.01, max_retries=1)
    def breaks() -> None:
        raise ValueError("no")

    @job(retry=0.01, max_retries=1)
    async def abreaks() -> None:
        raise ValueError("no")

    start()
    job_id = queue.enqueue(breaks if kind == "def" else abreaks)
    ended(queue, [job_id], "failed")
    (record,) = until(lambda: events.of("job.failed"))
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert vars(record)["job_id"] == job_id
    assert [r.levelno for r in events.of("job.retry")] == [logging.INFO]


@KINDS
def test_a_cancel_of_the_users_is_no_warning(start: Start, queue: JobQueue, events: Events, kind: str) -> None:
    began: list[JobContext] = []

    @job
    def works(ctx: JobContext) -> None:
        began.append(ctx)
        until(lambda: ctx.cancelled)

    @job
    async def aworks(ctx: JobContext) -> None:
        began.append(ctx)
        await asyncio.get_running_loop().create_future()

    start()
    job_id = queue.enqueue(works if kind == "def" else aworks)
    until(lambda: began)
    assert queue.cancel(job_id)
    until(lambda: events.jobs("job.cancelled") == [job_id])
    until(lambda: began[0].cancelled)
    assert events.loud() == []


LOGS_ANEW = """
import logging.config
logging.config.dictConfig({"version": 1})  # which disables all loggers that are there
from dbjobq import job
@job(max_retries=0)
def breaks():
    raise ValueError("no")
"""


@pytest.fixture
def enabled() -> Iterator[None]:
    """Loggers that a test disables are enabled again at its end."""
    yield
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False


@pytest.mark.usefixtures("enabled")
@pytest.mark.parametrize("when", ["named", "opened"])
def test_a_module_that_configures_logging_silences_nothing(  # noqa: PLR0917 - fixtures
    start: Start, queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: Events, when: str
) -> None:
    (tmp_path / "logs_anew").mkdir()
    (tmp_path / "logs_anew" / "__init__.py").touch()
    (tmp_path / "logs_anew" / "jobs.py").write_text(LOGS_ANEW)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    try:
        start(imports=["logs_anew.jobs" if when == "named" else "logs_anew"])
        job_id = queue.enqueue("logs_anew.jobs.breaks", max_retries=0)
        ended(queue, [job_id], "failed")
        assert not logging.getLogger("dbjobq.worker").disabled
        assert not logging.getLogger("dbjobq.job").disabled
        until(lambda: events.jobs("job.failed") == [job_id])
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "logs_anew"]:
            del sys.modules[name]


@KINDS
@pytest.mark.usefixtures("enabled")
def test_a_job_that_configures_logging_silences_neither_its_worker_nor_itself(
    start: Start, queue: JobQueue, events: Events, kind: str
) -> None:
    def configure(ctx: JobContext) -> None:
        logger = ctx.logger
        logger.info("before")
        logging.config.dictConfig({"version": 1})
        logger.info("after")
        raise ValueError("no")

    @job(max_retries=0, name="configures")
    def configures(ctx: JobContext) -> None:
        configure(ctx)

    @job(max_retries=0, name="aconfigures")
    async def aconfigures(ctx: JobContext) -> None:
        configure(ctx)

    worker = start()
    job_id = queue.enqueue(configures if kind == "def" else aconfigures)
    ended(queue, [job_id], "failed")
    worker.stop()
    assert [vars(record)["job_id"] for record in (*events.of("before"), *events.of("after"))] == [job_id, job_id]
    assert events.jobs("job.failed") == [job_id]
    assert events.of("worker.stopped")


@KINDS
def test_a_line_of_a_jobs_own_logger_names_it(start: Start, queue: JobQueue, events: Events, kind: str) -> None:
    log = logging.getLogger("dbjobq_tests.shop")
    handler = logging.Handler()
    said: list[tuple[str, object]] = []

    def note(record: logging.LogRecord) -> None:
        said.append((record.getMessage(), vars(record).get("job_id")))

    handler.emit = note  # type: ignore[method-assign]
    handler.addFilter(name_job)
    log.addHandler(handler)
    log.setLevel(logging.INFO)

    @job
    def tells(n: int) -> None:
        log.info("%s", n)

    @job
    async def atells(n: int) -> None:
        log.info("%s", n)
        await asyncio.gather(asyncio.to_thread(log.info, f"thread {n}"), inner(n))

    async def inner(n: int) -> None:
        log.info("task %s", n)

    try:
        start(concurrency=3)
        ids = {str(n): queue.enqueue(tells if kind == "def" else atells, n=n) for n in range(20)}
        ended(queue, ids.values())
        log.info("outside")
    finally:
        log.removeHandler(handler)
    assert said.pop() == ("outside", None)
    assert len(said) == (20 if kind == "def" else 60)
    assert all(job_id == ids[words.rpartition(" ")[2]] for words, job_id in said)
    assert all(get(queue, job_id).status == "completed" for job_id in ids.values())
