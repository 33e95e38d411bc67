"""What runs, how many at once, for how long, and what becomes of it (contract §3 and §5)."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dbjobq import ConfigError, Discard, JobContext, JobQueue, Retry, RetryPolicy, Worker, job
from dbjobq.queue import AsyncJobQueue
from tests.storage.database import Database
from tests.support.waiting import ended, failed_once, heard, lasting, settled, until
from tests.worker.cancelling import seconds_until_told
from tests.worker.conftest import Events, Start

pytestmark = pytest.mark.every_storage


@dataclass
class Crowd:
    """Counts who is there at the same time."""

    there: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> None:
        with self.lock:
            self.there += 1
            self.most = max(self.most, self.there)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.there -= 1


def error_of(queue: JobQueue, job_id: str) -> str:
    found = queue.get_job(job_id)
    assert found is not None
    return found.error or ""


def result_of(queue: JobQueue, job_id: str) -> Any:
    ended(queue, [job_id])
    found = queue.get_job(job_id)
    assert found is not None
    return found.result


# How many at once.


@pytest.mark.parametrize("kinds", [("def",), ("async",), ("def", "async")])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_as_many_jobs_run_at_once_as_the_concurrency_says_and_never_more(
    start: Start, queue: JobQueue, kinds: tuple[str, ...], concurrency: int
) -> None:
    crowd = Crowd()

    @job
    def sync() -> None:
        with crowd:
            time.sleep(0.05)

    @job
    async def coroutine() -> None:
        with crowd:
            await asyncio.sleep(0.05)

    ids = [queue.enqueue(sync if kind == "def" else coroutine) for _ in range(12) for kind in kinds]
    start(concurrency=concurrency)
    ended(queue, ids, timeout=20)
    assert crowd.most == concurrency


def test_many_short_jobs_do_not_exceed_the_concurrency_either(start: Start, queue: JobQueue) -> None:
    crowd = Crowd()

    @job
    def short(n: int) -> None:
        with crowd:
            if n % 50 == 0:
                time.sleep(0.02)

    start(concurrency=3)
    ended(queue, queue.enqueue_many(short, [{"n": n} for n in range(1500)]), timeout=30)
    assert 1 < crowd.most <= 3


def test_a_def_job_does_not_hold_up_async_jobs(start: Start, queue: JobQueue) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job
    def hold() -> None:
        began.set()
        go_on.wait(10)

    @job
    async def quick() -> None: ...

    start(concurrency=2)
    held = queue.enqueue(hold)
    assert began.wait(5)
    ended(queue, [queue.enqueue(quick) for _ in range(20)], timeout=3)
    go_on.set()
    ended(queue, [held])


def test_a_slot_that_frees_itself_takes_the_next_job_while_others_are_busy(start: Start, queue: JobQueue) -> None:
    go_on = threading.Event()
    began = threading.Semaphore(0)

    @job
    async def hold() -> None:
        began.release()
        await heard(go_on)

    @job
    def quick() -> None: ...

    start(concurrency=3, poll_interval=10.0, max_poll_interval=10.0)
    held = [queue.enqueue(hold) for _ in range(2)]
    for _ in held:
        assert began.acquire(timeout=5)
    ended(queue, [queue.enqueue(quick) for _ in range(10)], timeout=3)
    go_on.set()
    ended(queue, held)


@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_job_behind_a_long_one_goes_back_to_the_queue_for_another_worker(
    start: Start, queue: JobQueue, kind: str, claims: list[float]
) -> None:
    began, go_on = threading.Event(), threading.Event()
    by: dict[int, str] = {}

    @job
    def hop(n: int) -> None:
        by[n] = ""
        if n == 0:
            began.set()
            go_on.wait(10)

    @job
    async def ahop(n: int) -> None:
        by[n] = ""
        if n == 0:
            began.set()
            await heard(go_on)

    function = hop if kind == "def" else ahop
    start()
    warm = [{"n": -n} for n in range(1, 301)]
    ended(queue, queue.enqueue_many(function, warm))
    first = queue.enqueue_many(function, [{"n": n} for n in range(40)])
    assert began.wait(5)
    assert len(queue.get_running_jobs()) > 1  # claimed ahead
    start(poll_interval=5.0, max_poll_interval=5.0)
    ended(queue, first[1:], timeout=3)
    assert all(job.attempts == 0 for job in queue.get_completed_jobs())
    go_on.set()
    ended(queue, first)


def test_jobs_that_were_handed_back_keep_their_order(start: Start, queue: JobQueue) -> None:
    began, go_on = threading.Event(), threading.Event()
    order: list[int] = []

    @job
    def hop(n: int) -> None:
        order.append(n)
        if n == 0:
            began.set()
            go_on.wait(10)

    start()
    ended(queue, queue.enqueue_many(hop, [{"n": -1} for _ in range(300)]))
    order.clear()
    ids = queue.enqueue_many(hop, [{"n": n} for n in range(30)])
    assert began.wait(5)
    until(lambda: len(queue.get_running_jobs()) == 1)
    go_on.set()
    ended(queue, ids)
    assert order == list(range(30))


# How long.


@pytest.mark.parametrize("said", ["type", "options"])
@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_job_that_overruns_its_timeout_fails_at_that_time(
    start: Start, queue: JobQueue, kind: str, said: str, loop: str
) -> None:
    stopped: list[bool] = []
    limit = 0.3 if said == "type" else None

    @job(timeout=limit, max_retries=0, name=f"overrun.{kind}.{said}")
    def sync(ctx: JobContext) -> str:
        by = time.monotonic() + 3
        while not ctx.cancelled and time.monotonic() < by:
            time.sleep(0.005)
        stopped.append(ctx.cancelled)
        return "late"

    @job(timeout=limit, max_retries=0, name=f"aoverrun.{kind}.{said}")
    async def coroutine(ctx: JobContext) -> str:
        try:
            await asyncio.sleep(3)
        except asyncio.CancelledError:
            stopped.append(True)
            raise
        return "late"

    @job
    def next_one() -> None: ...

    function = sync if kind == "def" else coroutine
    options = queue.options() if said == "type" else queue.options(timeout=0.3)
    start()
    before = time.monotonic()
    job_id = options.enqueue(function)
    ended(queue, [job_id], "failed", timeout=3)
    assert 0.3 <= time.monotonic() - before < 1.5
    assert error_of(queue, job_id).startswith("TimeoutError: the attempt took longer than its timeout of 0.3 s")
    until(lambda: stopped == [True])
    ended(queue, [queue.enqueue(next_one)])


def test_the_timeout_of_the_call_outdoes_the_types(start: Start, queue: JobQueue) -> None:
    @job(timeout=0.1, max_retries=0)
    async def slow() -> str:
        await asyncio.sleep(0.4)
        return "done"

    start()
    assert result_of(queue, queue.options(timeout=5).enqueue(slow)) == "done"


def test_a_timeout_is_a_failed_attempt_and_is_retried(start: Start, queue: JobQueue) -> None:
    attempts: list[int] = []

    @job(timeout=0.2, retry=0.05)
    async def slow_at_first(ctx: JobContext) -> str:
        attempts.append(ctx.job.attempts)
        if ctx.job.attempts == 0:
            await asyncio.sleep(5)
        return "done"

    start()
    assert result_of(queue, queue.enqueue(slow_at_first)) == "done"
    assert attempts == [0, 1]


def test_a_timeout_error_of_the_functions_own_is_told_from_the_workers(start: Start, queue: JobQueue) -> None:
    @job(timeout=5, max_retries=0)
    async def own() -> None:
        raise TimeoutError("the remote side")

    @job(timeout=5, max_retries=0)
    def sync_own() -> None:
        raise TimeoutError("the remote side")

    start()
    ids = [queue.enqueue(own), queue.enqueue(sync_own)]
    ended(queue, ids, "failed")
    assert all(error_of(queue, i).startswith("TimeoutError: the remote side") for i in ids)


def test_a_def_job_that_overran_does_not_take_part_in_the_concurrency(start: Start, queue: JobQueue) -> None:
    go_on = threading.Event()

    @job(timeout=0.1, max_retries=0)
    def hold() -> None:
        go_on.wait(20)

    @job
    def quick() -> None: ...

    start(concurrency=1)
    held = [queue.enqueue(hold) for _ in range(3)]
    ended(queue, held, "failed")
    ended(queue, [queue.enqueue(quick)])
    go_on.set()


def test_a_late_result_of_a_def_job_that_overran_changes_nothing(start: Start, queue: JobQueue) -> None:
    ends = threading.Event()

    @job(timeout=0.1, max_retries=0)
    def late() -> str:
        time.sleep(0.4)
        ends.set()
        return "late"

    start()
    job_id = queue.enqueue(late)
    ended(queue, [job_id], "failed")
    assert ends.wait(3)
    lasting(lambda: [j.id for j in queue.get_failed_jobs()] == [job_id], 0.3)
    found = queue.get_job(job_id)
    assert found is not None
    assert found.result is None


# Cancelled.


def test_a_running_async_job_that_is_cancelled_is_interrupted_within_a_second(
    start: Start, queue: JobQueue, loop: str
) -> None:
    began = threading.Event()
    told: list[float] = []
    seen: list[bool] = []

    @job
    async def slow(ctx: JobContext) -> None:
        began.set()
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            told.append(time.monotonic())
            seen.append(ctx.cancelled)
            raise

    @job
    async def next_one() -> None: ...

    start()
    job_id = queue.enqueue(slow)
    assert began.wait(5)
    before = time.monotonic()
    assert queue.cancel(job_id)
    until(lambda: told, 3)
    assert told[0] - before < 1.0
    assert seen == [True]
    ended(queue, [job_id], "cancelled")
    ended(queue, [queue.enqueue(next_one)])


def test_a_running_def_job_that_is_cancelled_is_told_within_a_second(start: Start, queue: JobQueue) -> None:
    began = threading.Event()
    told: list[float] = []

    @job
    def slow(ctx: JobContext) -> str:
        began.set()
        by = time.monotonic() + 5
        while not ctx.cancelled and time.monotonic() < by:
            time.sleep(0.005)
        told.append(time.monotonic())
        return "late"

    @job
    def next_one() -> None: ...

    start()
    job_id = queue.enqueue(slow)
    assert began.wait(5)
    before = time.monotonic()
    assert queue.cancel(job_id)
    until(lambda: told)
    assert told[0] - before < 1.0
    ended(queue, [queue.enqueue(next_one)])
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.status, found.result) == ("cancelled", None)


@pytest.mark.parametrize("kind", ["def", "async"])
def test_with_listening_down_a_cancelled_job_is_found_by_the_heartbeat(
    start: Start, queue: JobQueue, dsn: str, kind: str
) -> None:
    from dbjobq import PostgresStorage
    from tests.support.faultproxy import proxied

    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(dsn, listen_conninfo=through) as storage:
        proxy.refuse()
        worker = start(JobQueue(storage), lease=30.0)
        assert seconds_until_told(queue, kind, queue.cancel) < 2.0
        worker.stop()


def test_a_job_that_is_cancelled_while_it_ends_is_one_or_the_other(start: Start, queue: JobQueue) -> None:
    began = threading.Semaphore(0)

    @job
    async def short(n: int) -> str:
        began.release()
        await asyncio.sleep(0.004 * (n % 5))
        return "done"

    start(concurrency=4)
    ids = queue.enqueue_many(short, [{"n": n} for n in range(60)])
    outcomes: dict[str, bool] = {}
    for job_id in ids:
        assert began.acquire(timeout=5)
        outcomes[job_id] = queue.cancel(job_id)
    settled(queue)
    for job_id, cancelled in outcomes.items():
        found = queue.get_job(job_id)
        assert found is not None
        assert (found.status, found.result) == (("cancelled", None) if cancelled else ("completed", "done"))


def test_a_notice_of_a_cancellation_that_did_not_happen_is_not_believed(
    start: Start, queue: JobQueue, database: Database, events: Events
) -> None:
    """Anybody who may connect can send one; and a true one may come late, when the job was revived and runs again."""
    began, told = threading.Event(), threading.Event()

    @job
    async def work() -> str:
        began.set()
        await heard(told)
        return "kept"

    start()
    job_id = queue.enqueue(work)
    assert began.wait(5)
    database.rows("select pg_notify('dbjobq', 'c' || %s)", job_id)
    other = queue.enqueue(work)
    assert queue.cancel(other)  # its notice comes after the forged one
    lasting(lambda: not events.of("job.lost"), 0.3)
    told.set()
    ended(queue, [job_id])
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.result, found.attempts) == ("kept", 0)


def test_a_job_cancelled_and_revived_while_its_function_still_runs_ends_once_by_its_second_run(
    start: Start, queue: JobQueue
) -> None:
    began = threading.Semaphore(0)
    first, ran = threading.Event(), list[int]()

    @job
    def slow() -> int:
        ran.append(1)
        began.release()
        if len(ran) == 1:
            first.wait(10)
            return 1
        return 2

    start()
    job_id = queue.enqueue(slow)
    assert began.acquire(timeout=5)
    assert queue.cancel(job_id)
    assert queue.retry(job_id)
    assert began.acquire(timeout=5)
    ended(queue, [job_id])
    first.set()
    lasting(lambda: result_of(queue, job_id) == 2, 0.3)


# The context.


def test_the_context_of_a_def_has_the_job_and_a_queue_to_enqueue_more(start: Start, queue: JobQueue) -> None:
    @job
    def child(n: int) -> int:
        return n

    @job
    def parent(n: int, ctx: JobContext) -> list[str]:
        assert isinstance(ctx.queue, JobQueue)
        assert ctx.job.data == {"n": n}
        return [ctx.job.id, ctx.job.status, ctx.queue.enqueue(child, n=n + 1)]

    start()
    job_id = queue.enqueue(parent, n=1)
    own, status, child_id = result_of(queue, job_id)
    assert (own, status) == (job_id, "running")
    assert result_of(queue, child_id) == 2


def test_the_context_of_an_async_def_has_an_async_queue(start: Start, queue: JobQueue, loop: str) -> None:
    @job
    async def child(n: int) -> int:
        return n

    @job
    async def parent(ctx: JobContext, n: int = 1) -> str:
        assert isinstance(ctx.queue, AsyncJobQueue)
        return await ctx.queue.enqueue(child, n=n + 1)

    start()
    child_id = result_of(queue, queue.enqueue(parent))
    assert result_of(queue, child_id) == 2


@pytest.mark.parametrize("kind", ["def", "async"])
def test_progress_is_seen_while_the_job_runs(start: Start, queue: JobQueue, kind: str) -> None:
    go_on = threading.Event()

    @job
    def steps(ctx: JobContext) -> None:
        for n in range(1000):
            ctx.progress(n, 1000, f"step {n}")
        go_on.wait(10)

    @job
    async def asteps(ctx: JobContext) -> None:
        for n in range(1000):
            ctx.progress(n, 1000, f"step {n}")
        await heard(go_on)

    start()
    job_id = queue.enqueue(steps if kind == "def" else asteps)

    def seen() -> Any:
        return queue.get_progress(job_id)

    until(lambda: seen() == {"done": 999, "total": 1000, "message": "step 999"}, 4)
    go_on.set()
    ended(queue, [job_id])


def test_the_contexts_logger_carries_the_job(start: Start, queue: JobQueue, events: Events) -> None:
    @job(name="logging.job")
    def talk(ctx: JobContext) -> None:
        ctx.logger.info("hello from a job")

    start()
    job_id = queue.enqueue(talk)
    ended(queue, [job_id])
    (record,) = events.of("hello from a job")
    fields = vars(record)
    assert (fields["job_id"], fields["job_type"], fields["queue"], fields["attempt"]) == (
        job_id,
        "logging.job",
        "default",
        1,
    )
    assert record.name == "dbjobq.job.logging.job"


tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


@pytest.mark.parametrize("kind", ["def", "async"])
def test_what_a_job_leaves_in_context_variables_is_not_for_the_next(start: Start, queue: JobQueue, kind: str) -> None:
    seen: list[str] = []

    @job
    def leave(n: int) -> None:
        seen.append(tenant.get())
        tenant.set(f"tenant {n}")

    @job
    async def aleave(n: int) -> None:
        seen.append(tenant.get())
        tenant.set(f"tenant {n}")
        await asyncio.sleep(0)

    start()
    function = leave if kind == "def" else aleave
    ended(queue, queue.enqueue_many(function, [{"n": n} for n in range(50)]))
    assert seen == ["nobody"] * 50


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

    start()
    job_id = queue.enqueue("shop.mail.send", max_retries=0, to="x")
    ended(queue, [job_id], "failed")
    error = error_of(queue, job_id)
    assert error.startswith("UnknownJobType: no function for job type 'shop.mail.send'")
    assert "imports=[" in error
    assert "@job" in error
    ended(queue, [queue.enqueue(fine)])


@pytest.mark.parametrize("name", ["os.system", "os.getcwd", "builtins.print", "subprocess.run", "__main__.main"])
def test_a_row_cannot_make_a_worker_call_what_was_not_registered(start: Start, queue: JobQueue, name: str) -> None:
    start(imports=["tests.support.handlers"])
    job_id = queue.enqueue(name, max_retries=0)
    ended(queue, [job_id], "failed")
    assert "UnknownJobType" in error_of(queue, job_id)


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

    start(imports=[f"{package}.tasks"])
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
    from dbjobq import attempt

    def dumped(value: object) -> str:
        return "{not json" if value == "bad" else '"good"'

    monkeypatch.setattr(attempt, "dump_result", dumped)

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
