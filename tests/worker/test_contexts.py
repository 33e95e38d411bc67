"""What a job finds in its context, and in context variables."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from dbjobq import Job, JobContext, JobQueue, job
from dbjobq.queue.queues import AsyncJobQueue
from dbjobq.storage.values import Claim
from tests.support.looking import result_of
from tests.support.waiting import ended, heard, until
from tests.worker.conftest import LASTING, Events, Start

pytestmark = pytest.mark.every_storage


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
def test_the_job_is_made_when_a_function_asks_for_it_and_once(
    start: Start, queue: JobQueue, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most functions never do, and it would decode the arguments a second time for each job."""
    made: list[str] = []
    original = Claim.job

    def counted(self: Claim, worker_id: str | None) -> Job:
        made.append(self.id)
        return original(self, worker_id)

    @job
    def work(ctx: JobContext, ask: bool) -> None:
        assert not ask or ctx.job is ctx.job

    @job
    async def awork(ctx: JobContext, ask: bool) -> None:
        assert not ask or ctx.job is ctx.job

    monkeypatch.setattr(Claim, "job", counted)
    start()
    function = work if kind == "def" else awork
    ended(queue, [queue.enqueue(function, ask=False)])
    assert made == []
    job_id = queue.enqueue(function, ask=True)
    ended(queue, [job_id])
    assert made == [job_id]


@pytest.mark.parametrize("kind", ["def", "async"])
def test_progress_is_seen_while_the_job_runs(start: Start, queue: JobQueue, kind: str) -> None:
    go_on = threading.Event()

    @job
    def steps(ctx: JobContext) -> None:
        for n in range(1000):
            ctx.progress(n, 1000, f"step {n}")
        go_on.wait(LASTING)

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
