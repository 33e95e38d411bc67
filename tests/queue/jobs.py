"""Job functions for the tests of the queues."""

from __future__ import annotations

from typing import Any

from dbjobq import Discard, JobContext, Retry, RetryPolicy, job


def send_email(to: str, subject: str = "") -> str:
    """An undecorated function."""
    return f"{to}: {subject}"


def anything(**data: Any) -> dict[str, Any]:
    return data


@job(max_retries=7, priority=9, queue="reports", timeout=12.5)
def report(year: int) -> int:
    return year


@job
async def gather(year: int) -> int:
    return year + 1


@job(max_retries=1)
def crash(why: str) -> None:
    raise LookupError(why)


@job
async def acrash(why: str) -> None:
    raise LookupError(why)


@job
def leave() -> None:
    raise SystemExit(3)


@job
def postpone() -> None:
    raise Retry(after=1000, reason="not yet")


@job
def give_up() -> None:
    raise Discard("pointless")


@job(retry=RetryPolicy(never=(KeyError,)))
def never_again() -> None:
    raise KeyError("x")


@job(retry=60)
def every_minute() -> None:
    raise ValueError("again")


@job
def unspeakable() -> object:
    return object()


@job
def look(context: JobContext, word: str) -> list[str]:
    return [context.job.id, word, type(context.queue).__name__]


@job
async def alook(word: str, context: JobContext | None = None) -> list[str]:
    assert context is not None
    return [context.job.id, word, type(context.queue).__name__]


@job(transactional=True)
def note(context: JobContext, text: str, fail: bool = False) -> str:
    context.connection.execute("insert into note values (%s)", (text,))
    if fail:
        raise ValueError(text)
    return text


@job(transactional=True)
async def anote(context: JobContext, text: str, fail: bool = False) -> str:
    await context.connection.execute("insert into note values (%s)", (text,))
    if fail:
        raise ValueError(text)
    return text


@job
def finish_another(context: JobContext, other: str) -> None:
    context.queue.complete(other)
