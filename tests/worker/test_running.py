"""What runs, how often, and what becomes of what it returns."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbjobq import ConfigError, Discard, JobContext, JobQueue, Retry, RetryPolicy, Worker, job
from tests.support.looking import error_of, result_of
from tests.support.waiting import ended, failed_once, until
from tests.worker.conftest import Start

pytestmark = pytest.mark.every_storage


# Retries.


@pytest.mark.parametrize("kind", ["def", "async"])
def test_raising_retry_decides_when_the_next_attempt_is(start: Start, queue: JobQueue, kind: str) -> None:
    @job
    def later() -> None:
        raise Retry(after=100, reason="not yet")

    @job
    async def alater() -> None:
        raise Retry(after=100, reason="not yet")

    start()
    job_id = queue.enqueue(later if kind == "def" else alater)
    found = failed_once(queue, job_id)
    assert found.status == "pending"
    assert (found.error or "").startswith("Retry: not yet")
    assert found.execute_at is not None
    assert found.updated_at is not None
    assert 99.5 < (found.execute_at - found.updated_at).total_seconds() < 100.5


def test_raising_retry_with_no_retry_left_fails(start: Start, queue: JobQueue) -> None:
    @job(max_retries=0)
    def later() -> None:
        raise Retry(after=0, reason="not yet")

    start()
    ended(queue, [queue.enqueue(later)], "failed")


def test_raising_discard_fails_the_job_for_good(start: Start, queue: JobQueue) -> None:
    @job(max_retries=9)
    def pointless() -> None:
        raise Discard("no such customer")

    start()
    job_id = queue.enqueue(pointless)
    ended(queue, [job_id], "failed")
    assert error_of(queue, job_id).startswith("Discard: no such customer")
    found = queue.get_job(job_id)
    assert found is not None
    assert found.attempts == 1


def test_a_policy_says_which_exceptions_are_worth_a_retry(start: Start, queue: JobQueue) -> None:
    policy = RetryPolicy(base=0.05, on=(OSError,), never=(FileNotFoundError,))

    @job(retry=policy, max_retries=1)
    def raises(what: str) -> None:
        raise {"os": OSError, "file": FileNotFoundError, "value": ValueError}[what](what)

    start()
    ids = {what: queue.enqueue(raises, what=what) for what in ("os", "file", "value")}
    ended(queue, ids.values(), "failed")
    attempts = {what: j.attempts for what, i in ids.items() if (j := queue.get_job(i))}
    assert attempts == {"os": 2, "file": 1, "value": 1}


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_job_starts_at_most_one_time_more_than_it_has_retries(start: Start, queue: JobQueue, retries: int) -> None:
    ran: list[int] = []

    @job(retry=0.01)
    def fails(ctx: JobContext) -> None:
        ran.append(ctx.job.attempts)
        raise ValueError

    start()
    ended(queue, [queue.enqueue(fails, max_retries=retries)], "failed")
    assert ran == list(range(retries + 1))


# Types.


def test_a_type_nobody_registered_fails_with_an_error_that_helps_and_the_worker_goes_on(
    start: Start, queue: JobQueue
) -> None:
    @job
    def fine() -> None: ...

    start(unknown_within=0)
    job_id = queue.enqueue("shop.mail.send", max_retries=0, to="x")
    ended(queue, [job_id], "failed")
    error = error_of(queue, job_id)
    assert error.startswith("UnknownJobType: no function for job type 'shop.mail.send'")
    assert "imports=[" in error
    assert "@job" in error
    ended(queue, [queue.enqueue(fine)])


@pytest.mark.parametrize("name", ["os.system", "os.getcwd", "builtins.print", "subprocess.run", "__main__.main"])
def test_a_row_cannot_make_a_worker_call_what_was_not_registered(start: Start, queue: JobQueue, name: str) -> None:
    start(imports=["tests.support.handlers"], unknown_within=0)
    job_id = queue.enqueue(name, max_retries=0)
    ended(queue, [job_id], "failed")
    assert "UnknownJobType" in error_of(queue, job_id)


SLOW_MODULE = """
import time
from pathlib import Path
from threading import current_thread
from dbjobq import job

here = Path(__file__).parent
(here / "began").touch()
while not (here / "go").exists():
    time.sleep(0.01)

@job
def registered():
    return current_thread().name
imported_by = current_thread().name
"""


@pytest.fixture
def slow_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a module whose import takes until there is a file `go` in it, and a program."""
    package = tmp_path / "path" / f"slow_{tmp_path.name}"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "slow.py").write_text(SLOW_MODULE)
    (package / "other.py").write_text("from dbjobq import job\n@job\ndef registered(): ...\n")
    (package / "__main__.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(package.parent)  # type: ignore[no-untyped-call, unused-ignore]
    yield package
    (package / "go").touch()
    for name in [name for name in sys.modules if name.partition(".")[0] == package.name]:
        del sys.modules[name]


def test_a_module_is_imported_beside_the_event_loop_once_and_the_log_names_the_job(
    start: Start, queue: JobQueue, slow_package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @job
    async def fine() -> None: ...

    caplog.set_level(logging.INFO, "dbjobq.worker")
    start(imports=[slow_package.name], concurrency=3)
    slow = [queue.enqueue(f"{slow_package.name}.slow.registered") for _ in range(2)]
    until((slow_package / "began").exists)
    ended(queue, [queue.enqueue(fine)])
    (slow_package / "go").touch()
    ended(queue, slow)
    assert sys.modules[f"{slow_package.name}.slow"].imported_by == "dbjobq-import"
    (said,) = [record for record in caplog.records if record.getMessage() == "module.importing"]
    assert vars(said)["job_id"] in slow
    assert vars(said)["modules"] == f"{slow_package.name}.slow"


def test_a_job_whose_module_is_being_imported_can_be_cancelled(
    start: Start, queue: JobQueue, slow_package: Path
) -> None:
    @job
    async def fine() -> None: ...

    start(imports=[slow_package.name])
    slow = queue.enqueue(f"{slow_package.name}.slow.registered")
    until((slow_package / "began").exists)
    assert queue.cancel(slow)
    ended(queue, [queue.enqueue(fine)])  # in the only slot
    ended(queue, [slow], "cancelled")
    (slow_package / "go").touch()
    ended(queue, [queue.enqueue(f"{slow_package.name}.slow.registered")])


def test_a_worker_stops_while_a_module_is_being_imported(start: Start, queue: JobQueue, slow_package: Path) -> None:
    worker = start(imports=[slow_package.name], shutdown_timeout=0.1)
    slow = queue.enqueue(f"{slow_package.name}.slow.registered")
    until((slow_package / "began").exists)
    worker.stop()
    ended(queue, [slow], "pending")
    assert queue.get_job(slow).attempts == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("named", ["", ".other"])
def test_no_row_runs_the_program_of_a_package(start: Start, queue: JobQueue, slow_package: Path, named: str) -> None:
    start(imports=[slow_package.name + named], unknown_within=0)
    ids = [queue.enqueue(f"{slow_package.name}.__main__{rest}", max_retries=0) for rest in ("", ".x", ".__main__.x")]
    ended(queue, ids, "failed")
    assert not (slow_package / "ran").exists()


MODULE = """
import dbjobq
@dbjobq.job
def registered(n):
    return n * 2
def plain(n):
    return n * 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of its own, importable for the test; returns its name."""
    name = f"shop_{tmp_path.name}".replace("-", "_")
    folder = tmp_path / "path" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "tasks.py").write_text(MODULE)
    (folder / "more.py").write_text(MODULE)
    (folder / "broken.py").write_text("raise RuntimeError('broken module')")
    (folder / "leaving.py").write_text("import sys; sys.exit(3)")
    monkeypatch.syspath_prepend(tmp_path / "path")  # type: ignore[no-untyped-call, unused-ignore]
    yield name
    for module in [m for m in sys.modules if m.startswith(name)]:
        del sys.modules[module]


def test_functions_of_modules_named_to_the_worker_run(start: Start, queue: JobQueue, package: str) -> None:
    start(imports=[f"{package}.tasks"])
    assert result_of(queue, queue.enqueue(f"{package}.tasks.registered", n=2)) == 4
    assert result_of(queue, queue.enqueue(f"{package}.tasks.plain", n=2)) == 6


def test_modules_under_a_named_package_are_imported_when_needed(start: Start, queue: JobQueue, package: str) -> None:
    start(imports=package)
    assert result_of(queue, queue.enqueue(f"{package}.more.registered", n=2)) == 4


@pytest.mark.parametrize("module", ["broken", "leaving", "missing"])
def test_a_module_that_cannot_be_imported_fails_the_job_not_the_worker(
    start: Start, queue: JobQueue, package: str, module: str, loop: str
) -> None:
    @job
    def fine() -> None: ...

    start(imports=package, unknown_within=0)
    job_id = queue.enqueue(f"{package}.{module}.function", max_retries=0)
    ended(queue, [job_id], "failed")
    assert f"{package}.{module}" in error_of(queue, job_id) or "SystemExit" in error_of(queue, job_id)
    ended(queue, [queue.enqueue(fine)])


def test_a_worker_that_names_a_module_that_is_not_there_does_not_start(queue: JobQueue) -> None:
    worker = Worker(queue, imports=["no_such_module_anywhere"])
    with pytest.raises(ConfigError, match="no_such_module_anywhere"):
        worker.start()


def test_arguments_that_do_not_fit_fail_the_job_not_the_worker(start: Start, queue: JobQueue) -> None:
    @job(name="strict", max_retries=0)
    def strict(a: int) -> int:
        return a

    @job(name="astrict", max_retries=0)
    async def astrict(a: int) -> int:
        return a

    start()
    ids = [queue.enqueue("strict", b=1), queue.enqueue("astrict", b=1)]
    ended(queue, ids, "failed")
    assert all("TypeError" in error_of(queue, i) for i in ids)
    assert result_of(queue, queue.enqueue("strict", a=1)) == 1


# Results.


KEPT: list[Any] = [
    {"a": [1, 2.5, "x", None, True]},
    [],
    "",
    0,
    False,
    "€ \U0001f600",
    "NUL \x00",
    10**40,
    1.5e308,
    {"deep": [[[[]]]]},
]


@pytest.mark.parametrize("kind", ["def", "async"])
@pytest.mark.parametrize("value", KEPT, ids=[ascii(value)[:12] for value in KEPT])
def test_a_result_is_kept_as_json(start: Start, queue: JobQueue, kind: str, value: Any) -> None:
    @job
    def give() -> Any:
        return value

    @job
    async def agive() -> Any:
        return value

    start()
    job_id = queue.enqueue(give if kind == "def" else agive)
    assert result_of(queue, job_id) == value
    assert error_of(queue, job_id) == ""


def test_a_job_that_returns_none_has_no_result(start: Start, queue: JobQueue) -> None:
    @job
    def nothing() -> None: ...

    start()
    assert result_of(queue, queue.enqueue(nothing)) is None


def endless() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize("kind", ["def", "async"])
@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan"), b"bytes", endless()], ids=type)
def test_a_result_that_is_not_json_completes_the_job_and_says_why_it_was_not_kept(
    start: Start, queue: JobQueue, kind: str, value: Any
) -> None:
    ran: list[int] = []

    @job
    def give() -> Any:
        ran.append(1)
        return value

    @job
    async def agive() -> Any:
        ran.append(1)
        return value

    start()
    job_id = queue.enqueue(give if kind == "def" else agive)
    assert result_of(queue, job_id) is None
    assert "cannot be stored as JSON" in error_of(queue, job_id)
    assert ran == [1]


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def test_a_result_nested_as_deeply_as_python_can_write_it_completes_the_job(start: Start, queue: JobQueue) -> None:
    @job
    def deep() -> Any:
        return nested(700)

    start()
    ended(queue, [queue.enqueue(deep)])


def test_a_result_that_postgresql_refuses_completes_the_job_and_leaves_the_others_of_its_batch_alone(
    start: Start, queue: JobQueue, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever our check lets through and the server refuses: here the check is turned off."""
    from dbjobq.attempt import outcome

    def dumped(value: object) -> str:
        return "{not json" if value == "bad" else '"good"'

    monkeypatch.setattr(outcome, "dump_result", dumped)

    @job
    def give(what: str) -> str:
        return what

    ids = queue.enqueue_many(give, [{"what": "bad" if n % 7 == 3 else "good"} for n in range(40)])
    start()
    ended(queue, ids)
    for n, job_id in enumerate(ids):
        if n % 7 == 3:
            assert result_of(queue, job_id) is None
            assert "its result could not be stored" in error_of(queue, job_id)
        else:
            assert (result_of(queue, job_id), error_of(queue, job_id)) == ("good", "")


def test_a_workers_steps_are_logged_and_a_jobs_arguments_never(
    start: Start, queue: JobQueue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    @job(max_retries=1, retry=0.01)
    def fails(password: str) -> None:
        raise ValueError("no")

    worker = start()
    ended(queue, [queue.enqueue(fails, password="hunter2")], "failed")
    worker.stop()
    said = [record.getMessage() for record in caplog.records if record.name == "dbjobq.worker"]
    assert [event for event in said if event in {"worker.started", "job.retry", "job.failed", "worker.stopped"}] == [
        "worker.started",
        "job.retry",
        "job.failed",
        "worker.stopped",
    ]
    assert not any("hunter2" in str(vars(record)) for record in caplog.records if record.name.startswith("dbjobq"))
