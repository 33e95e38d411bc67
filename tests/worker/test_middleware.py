"""Middleware: generator functions around each attempt, wherever the job's function runs (docs/middleware.md)."""

# pyright: reportPrivateUsage=false
# mypy: disable-error-code="unreachable"
# ruff: noqa: PLR0917 - fixtures are arguments

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from dbjobq import AsyncJobQueue, Discard, JobContext, JobQueue, Worker, job, middleware
from dbjobq.attempt.call import Caller
from dbjobq.jobs import middleware as middleware_module
from dbjobq.jobs.registry import task_of
from dbjobq.storage.values import Claim
from tests.storage.database import Database
from tests.support.looking import error_of, get
from tests.support.waiting import ended, until
from tests.unit.test_retry import CLAIM
from tests.worker.conftest import Start


class Diary:
    """What middleware and functions have said."""

    def __init__(self, file: Path) -> None:
        self.file = str(file)

    def __call__(self) -> list[str]:
        path = Path(self.file)
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path / "diary")


@pytest.fixture(autouse=True)
def around(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module with the jobs; no test's middleware is there for the next one."""
    monkeypatch.setattr(middleware_module, "_everywhere", ())
    module = importlib.import_module("tests.support.around")  # registers its own the first time
    monkeypatch.setattr(middleware_module, "_everywhere", ())
    return module


WORKERS: Final = ["coroutine", "thread", "disguised", "transaction", "atransaction", "process", "aprocess"]
BY_HAND: Final = ["coroutine", "thread", "disguised", "transaction", "atransaction"]


def run_by_hand(queue: JobQueue, *, asynchronous: bool = False) -> None:
    """Run the next job by hand."""
    if not asynchronous:
        found = queue.dequeue()
        assert found is not None
        queue.execute_job(found)
        return

    async def run() -> None:
        aqueue = AsyncJobQueue(queue.storage)
        found = await aqueue.dequeue()
        assert found is not None
        await aqueue.execute_job(found)
        await aqueue.close()

    asyncio.run(run())


# The five ways.


@pytest.mark.parametrize("how", ["", "raise"])
@pytest.mark.parametrize("kind", WORKERS)
def test_layers_run_around_each_attempt_of_a_worker_in_their_order(
    start: Start, queue: JobQueue, around: Any, diary: Diary, kind: str, how: str
) -> None:
    middleware(around.everywhere)
    start(middleware=[around.of_worker])
    job_id = queue.enqueue(getattr(around, kind), file=diary.file, how=how)
    inside = ["everywhere in", "worker in", "type in", "function within type"]
    if how == "raise":
        ended(queue, [job_id], "failed")
        assert diary() == [*inside, "type sees Discard", "worker sees Discard", "everywhere sees Discard"]
        assert error_of(queue, job_id).startswith("Discard: from inside")
        assert "Raised by the middleware" not in error_of(queue, job_id)
    else:
        ended(queue, [job_id])
        assert diary() == [*inside, "type out", "worker out", "everywhere out"]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", BY_HAND)
def test_layers_run_around_an_attempt_by_hand(
    queue: JobQueue, around: Any, diary: Diary, kind: str, asynchronous: bool
) -> None:
    middleware(around.everywhere)
    job_id = queue.enqueue(getattr(around, kind), file=diary.file)
    run_by_hand(queue, asynchronous=asynchronous)
    assert get(queue, job_id).status == "completed"
    assert diary() == ["everywhere in", "type in", "function within type", "type out", "everywhere out"]


@pytest.mark.parametrize("kind", ["coroutine", "disguised", "atransaction", "aprocess"])
def test_a_timeout_unwinds_all_layers(start: Start, queue: JobQueue, around: Any, diary: Diary, kind: str) -> None:
    middleware(around.everywhere)  # as its import in a process does
    start(middleware=[around.of_worker])
    job_id = queue.options(timeout=0.2, max_retries=0).enqueue(getattr(around, kind), file=diary.file, how="wait")
    ended(queue, [job_id], "failed")
    assert error_of(queue, job_id).startswith("TimeoutError: the attempt took longer")
    seen = [f"{name} sees CancelledError" for name in ("type", "worker", "everywhere")]
    until(lambda: diary() == ["everywhere in", "worker in", "type in", *seen])


@pytest.mark.parametrize("kind", ["coroutine", "disguised", "atransaction", "aprocess"])
def test_a_cancellation_unwinds_all_layers(start: Start, queue: JobQueue, around: Any, diary: Diary, kind: str) -> None:
    middleware(around.everywhere)  # as its import in a process does
    start(middleware=[around.of_worker])
    job_id = queue.enqueue(getattr(around, kind), file=diary.file, how="wait")
    until(lambda: "type in" in diary())
    assert queue.cancel(job_id)
    until(lambda: diary()[3:] == [f"{name} sees CancelledError" for name in ("type", "worker", "everywhere")])
    assert get(queue, job_id).status == "cancelled"


def test_an_async_generator_runs_around_async_def_jobs_alone(
    start: Start, queue: JobQueue, around: Any, diary: Diary
) -> None:
    middleware(around.of_coroutines)
    start()
    ended(queue, [queue.enqueue(around.thread, file=diary.file)])
    ended(queue, [queue.enqueue(around.coroutine, file=diary.file)])
    within = ["type in", "function within type", "type out"]
    assert diary() == [*within, "async in", *within, "async out"]


def test_what_it_does_in_the_transaction_is_rolled_back_with_it(
    start: Start, queue: JobQueue, database: Database
) -> None:
    database.rows("create table note (word text)")

    def notes(ctx: JobContext) -> Iterator[None]:
        ctx.connection.execute("insert into note values (%s)", (ctx.job.id,))
        yield
        if ctx.job.attempts == 0:
            raise ValueError("after the function")

    @job(name="around.rolled_back", transactional=True, retry=0.05, middleware=[notes])
    def nothing() -> None: ...

    start()
    job_id = queue.enqueue(nothing)
    ended(queue, [job_id])
    assert get(queue, job_id).attempts == 1
    assert database.rows("select word from note") == [(job_id,)]


# What it can do, and cannot.


RAN: Final[list[object]] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    RAN.clear()


def fails_before(ctx: JobContext) -> Iterator[None]:
    raise ValueError("not today")
    yield


def fails_after(ctx: JobContext) -> Iterator[None]:
    yield
    raise ValueError("too late")


def swallows(ctx: JobContext) -> Iterator[None]:
    with contextlib.suppress(BaseException):
        yield


def translates(ctx: JobContext) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise Discard("of no use to try again") from error


def yields_never(ctx: JobContext) -> Iterator[None]:
    if ctx.job.id == "":
        yield


def yields_twice(ctx: JobContext) -> Iterator[None]:
    with contextlib.suppress(ValueError):
        yield
    yield


async def afails_before(ctx: JobContext) -> AsyncIterator[None]:
    raise ValueError("not today")
    yield


async def afails_after(ctx: JobContext) -> AsyncIterator[None]:
    yield
    raise ValueError("too late")


async def aswallows(ctx: JobContext) -> AsyncIterator[None]:
    with contextlib.suppress(BaseException):
        yield


async def ayields_never(ctx: JobContext) -> AsyncIterator[None]:
    if ctx.job.id == "":
        yield


async def ayields_twice(ctx: JobContext) -> AsyncIterator[None]:
    with contextlib.suppress(ValueError):
        yield
    yield


NOTE: Final = "Raised by the middleware tests.worker.test_middleware."
MISDEEDS: Final[list[tuple[Any, bool, bool, str, str]]] = [
    # the middleware, whether the function raises, whether it is called, how the error begins, what else it says
    (fails_before, False, False, "ValueError: not today", NOTE + "fails_before."),
    (fails_after, False, True, "ValueError: too late", NOTE + "fails_after."),
    (swallows, True, True, "ValueError: from inside", "in function"),
    (translates, True, True, "Discard: of no use to try again", NOTE + "translates."),
    (yields_never, False, False, "RuntimeError: the middleware tests.worker.test_middleware.yields_never did not", ""),
    (yields_twice, False, True, "RuntimeError: the middleware tests.worker.test_middleware.yields_twice yielded", ""),
    (yields_twice, True, True, "RuntimeError: the middleware tests.worker.test_middleware.yields_twice yielded", ""),
    (afails_before, False, False, "ValueError: not today", NOTE + "afails_before."),
    (afails_after, False, True, "ValueError: too late", NOTE + "afails_after."),
    (aswallows, True, True, "ValueError: from inside", "in function"),
    (ayields_never, False, False, "RuntimeError: the middleware tests.worker.test_middleware.ayields_never did", ""),
    (ayields_twice, False, True, "RuntimeError: the middleware tests.worker.test_middleware.ayields_twice yield", ""),
    (ayields_twice, True, True, "RuntimeError: the middleware tests.worker.test_middleware.ayields_twice yield", ""),
]


@pytest.mark.parametrize("kind", ["def", "async"])
@pytest.mark.parametrize(("layer", "raises", "called", "error", "says"), MISDEEDS)
def test_an_attempt_fails_in_words_where_its_middleware_does(
    queue: JobQueue, kind: str, layer: Any, raises: bool, called: bool, error: str, says: str
) -> None:
    def function() -> None:
        RAN.append(1)
        if raises:
            raise ValueError("from inside")

    async def afunction() -> None:
        function()

    if kind == "def" and layer.__name__.startswith("a"):
        pytest.skip("an async generator around a def is refused")
    options: dict[str, Any] = {"name": f"around.{kind}", "max_retries": 0, "middleware": [layer]}
    job_id = queue.enqueue(job(**options)(function if kind == "def" else afunction))
    run_by_hand(queue)
    found = get(queue, job_id)
    assert (found.status, len(RAN)) == ("failed", called)
    assert error_of(queue, job_id).startswith(error)
    assert says in error_of(queue, job_id)


def test_a_functions_stop_iteration_is_its_own_failure(queue: JobQueue) -> None:
    def passes(ctx: JobContext) -> Iterator[None]:
        yield

    @job(name="around.stops", max_retries=0, middleware=[passes])
    def stops() -> None:
        raise StopIteration("of the function")

    job_id = queue.enqueue(stops)
    run_by_hand(queue)
    assert error_of(queue, job_id).startswith("StopIteration: of the function")


def test_the_function_and_all_layers_are_given_one_context(start: Start, queue: JobQueue) -> None:
    def sees(ctx: JobContext) -> Iterator[None]:
        RAN.append(ctx)
        yield
        RAN.append(ctx.cancelled)

    @job(name="around.sees", middleware=[sees])
    async def function(ctx: JobContext) -> None:
        RAN.append(ctx)

    start()
    ended(queue, [queue.enqueue(function)])
    assert RAN[0] is RAN[1]
    assert RAN[2] is False


# Where it is registered.


def test_middleware_registered_while_a_worker_runs_counts_from_then_on(start: Start, queue: JobQueue) -> None:
    @job(name="around.late")
    def function() -> None:
        RAN.append("function")

    start()
    ended(queue, [queue.enqueue(function)])

    @middleware
    def late(ctx: JobContext) -> Iterator[None]:
        RAN.append("late")
        yield

    ended(queue, [queue.enqueue(function)])
    assert RAN == ["function", "late", "function"]


def test_middleware_that_is_given_twice_runs_once(start: Start, queue: JobQueue, around: Any, diary: Diary) -> None:
    middleware(around.of_type)
    middleware(around.of_type)
    start(middleware=around.of_type)
    ended(queue, [queue.enqueue(around.thread, file=diary.file)])
    assert diary() == ["type in", "function within type", "type out"]


def test_a_module_that_is_loaded_again_replaces_its_middleware(around: Any) -> None:
    middleware(around.everywhere)
    middleware(around.of_type)
    importlib.reload(around)
    assert middleware_module.middleware_everywhere()[0] is around.everywhere
    assert len(middleware_module.middleware_everywhere()) == 2


def test_a_process_says_that_it_cannot_find_a_workers_middleware(
    start: Start, queue: JobQueue, around: Any, diary: Diary
) -> None:
    def nowhere(ctx: JobContext) -> Iterator[None]:
        yield

    start(middleware=[nowhere])
    job_id = queue.options(max_retries=0).enqueue(around.process, file=diary.file)
    ended(queue, [job_id], "failed")
    assert "define it at the top level of a module" in error_of(queue, job_id)
    assert diary() == []


# What is refused.


def no_generator(ctx: JobContext) -> Iterator[None]:
    return iter([None])


def no_context() -> Generator[None]:
    yield


def two_arguments(ctx: JobContext, call_next: object) -> Iterator[None]:
    yield


async def a_coroutine(ctx: JobContext) -> None: ...


def of_type_checkers(ctx: UnknownAtRunTime) -> Iterator[None]:  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
    yield


REGISTER: Final[dict[str, Callable[[Any], object]]] = {
    "everywhere": middleware,
    "worker": lambda function: Worker(JobQueue("postgresql:///nowhere"), middleware=[function]),
    "type": lambda function: job(name="around.refused", middleware=[function])(no_context_job),
}


def no_context_job() -> None: ...


@pytest.mark.parametrize("where", REGISTER)
@pytest.mark.parametrize(
    ("function", "says"),
    [
        (no_generator, "no_generator: must be a generator function that yields once"),
        (contextlib.contextmanager(no_context), "without @contextmanager"),
        (a_coroutine, "a_coroutine: must be a generator function"),
        ("tenant", "'tenant': must be a generator function"),
        (no_context, "no_context: must take one argument, the JobContext"),
        (two_arguments, "two_arguments: must take one argument, the JobContext: missing a required argument"),
    ],
)
def test_what_cannot_be_middleware_is_refused_where_it_is_registered(where: str, function: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        REGISTER[where](function)
    assert middleware_module.middleware_everywhere() == ()


def test_an_async_generator_around_a_def_is_refused_by_its_job(around: Any) -> None:
    with pytest.raises(TypeError, match="around an async def only"):
        job(name="around.refused", middleware=[around.of_coroutines])(no_context_job)


def test_annotations_that_only_type_checkers_know_are_no_hindrance() -> None:
    function: Any = globals()["of_type_checkers"]
    assert middleware(function) is function


def test_a_method_may_be_middleware(start: Start, queue: JobQueue) -> None:
    class Tenants:
        def use(self, ctx: JobContext) -> Iterator[None]:
            RAN.append(ctx.job.type)
            yield

    start(middleware=[Tenants().use, functools.partial(Tenants.use, Tenants())])

    @job(name="around.method")
    async def function() -> None: ...

    ended(queue, [queue.enqueue(function)])
    assert RAN == ["around.method"] * 2


# What it costs.


def test_a_job_without_middleware_is_called_as_if_there_were_none() -> None:
    """The call is the coroutine of the function itself: nothing is around it."""

    async def function() -> None: ...

    def passes(ctx: JobContext) -> Iterator[None]:
        yield

    def context(claim: Claim, _connection: object) -> JobContext:
        return JobContext(claim.job(None), None)

    task = task_of(function)
    caller = Caller(lambda _task: context, lambda rest, _holder: rest.close())
    holder = SimpleNamespace(context=None)
    claim = CLAIM._replace(data="{}")
    bare = caller.of(task)(claim, None, holder)
    assert bare.cr_code is function.__code__
    assert holder.context is None
    bare.close()
    middleware(passes)
    within = caller.of(task)(claim, None, holder)
    assert within.cr_code is not function.__code__
    within.close()
