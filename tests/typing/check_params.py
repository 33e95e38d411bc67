"""Read by mypy and pyright, never run: options(…).enqueue takes the function's own parameters.

Every line that is wrong says so; a checker that does not find it wrong reports the needless `ignore`.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import psycopg

from dbjobq import AsyncJobQueue, Job, JobContext, JobQueue, Worker, job, middleware
from dbjobq.ids import JobIds


@job
def send(to: str, subject: str = "", *, copies: int = 1) -> None: ...


@job(queue="mail")
async def asend(to: str, size: int) -> float:
    return size / len(to)


@job
def look(ctx: JobContext, word: str) -> str:
    return ctx.job.id + word


def nothing() -> None: ...


def sync_calls(queue: JobQueue) -> None:
    mail = queue.options(queue="mail", priority=5, delay=1.5, unique_key="k")
    assert_type(mail.enqueue(send, "a"), str)
    assert_type(mail.enqueue(send, to="a", subject="b", copies=2), str)
    assert_type(mail.enqueue(asend, "a", 1), str)
    assert_type(mail.enqueue(look, "word"), str)
    assert_type(mail.enqueue(look, word="word"), str)
    assert_type(mail.enqueue(nothing), str)
    assert_type(mail.enqueue("by.name", any_name=object()), str)
    assert_type(mail.enqueue_many(send, [{"to": "a"}]), JobIds)
    assert_type(queue.enqueue(send, to="a", priority=1), str)
    assert_type(queue.enqueue(send, "a", "b", priority=1), str)
    assert_type(queue.dequeue(), Job | None)

    mail.enqueue(send)  # type: ignore[call-overload]
    mail.enqueue(send, 5)  # type: ignore[call-overload]
    mail.enqueue(send, to=5)  # type: ignore[call-overload]
    mail.enqueue(send, to="a", subjekt="b")  # type: ignore[call-overload]
    mail.enqueue(send, "a", "b", 3)  # type: ignore[call-overload]
    mail.enqueue(asend, "a")  # type: ignore[call-overload]
    mail.enqueue(look)  # type: ignore[call-overload]
    mail.enqueue(look, word=1)  # type: ignore[call-overload]
    mail.enqueue(nothing, 1)  # type: ignore[call-overload]
    mail.enqueue("by.name", 1)  # type: ignore[call-overload]
    mail.enqueue(5)  # type: ignore[call-overload]
    queue.options(prio=1)  # type: ignore[call-arg]
    queue.options(priority="1")  # type: ignore[arg-type]


async def async_calls(queue: AsyncJobQueue) -> None:
    mail = queue.options(queue="mail")
    assert_type(await mail.enqueue(send, "a", subject="b"), str)
    assert_type(await mail.enqueue(look, "word"), str)
    assert_type(await mail.enqueue("by.name", x=1), str)
    assert_type(await mail.enqueue_many(send, []), JobIds)

    await mail.enqueue(send)  # type: ignore[call-overload]
    await mail.enqueue(asend, "a", "b")  # type: ignore[call-overload]
    await mail.enqueue(look, 1)  # type: ignore[call-overload]


def queues_are_made_of() -> None:
    assert_type(JobQueue(), JobQueue)
    assert_type(JobQueue("postgresql:///app"), JobQueue)
    assert_type(AsyncJobQueue(), AsyncJobQueue)

    JobQueue(5)  # type: ignore[arg-type]


def decorated_functions_keep_their_types() -> None:
    send(5)  # type: ignore[arg-type]


@job(transactional=True)
def with_context(ctx: JobContext[JobQueue, psycopg.Connection]) -> None:
    assert_type(ctx.job, Job)
    assert_type(ctx.queue.enqueue(send, to="a"), str)
    assert_type(ctx.queue.options(connection=ctx.connection).enqueue(send, "a"), str)
    assert_type(ctx.connection, psycopg.Connection)
    ctx.queue.options().enqueue(send, to=5)  # type: ignore[call-overload]
    ctx.queue.enqueue(send, priority="high")  # type: ignore[arg-type]


@job
async def with_async_context(ctx: JobContext[AsyncJobQueue]) -> None:
    assert_type(await ctx.queue.enqueue(send, to="a"), str)
    await ctx.queue.options().enqueue(send, to=5)  # type: ignore[call-overload]


def untyped_context(ctx: JobContext) -> None:
    assert_type(ctx, JobContext[Any, Any])


@middleware
def around(ctx: JobContext) -> Iterator[None]:
    yield


@middleware
async def around_coroutines(ctx: JobContext) -> AsyncIterator[None]:
    yield


@job(middleware=[around, around_coroutines])
async def surrounded(n: int) -> None: ...


def no_middleware(ctx: JobContext) -> None: ...


def registering_middleware(queue: JobQueue) -> None:
    assert_type(list(around(JobContext(Job(id="", type=""), queue))), list[None])
    Worker(queue, middleware=[around])
    Worker(queue, middleware=[no_middleware])  # type: ignore[list-item]
    middleware(no_middleware)  # type: ignore[type-var]
