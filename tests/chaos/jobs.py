"""What the workers run: each function writes into the ledger when it begins and when it ends."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

from dbjobq import JobContext, job
from tests.chaos.ledger import Book

RETRY = 0.2
"""Seconds before a retry."""


class Hiccup(Exception):  # noqa: N818 - expected
    """Raised on purpose."""


@cache
def book() -> Book:
    """This worker's; opened by its first job."""
    return Book()


@contextmanager
def attempt(context: JobContext) -> Generator[str]:
    """Write down the block as an execution; gives its name."""
    run, job = secrets.token_hex(8), context.job
    book().note("start", run=run, job=job.id, attempt=job.attempts, worker=job.worker_id)
    try:
        yield run
    except BaseException as error:
        book().note("end", run=run, how=type(error).__name__)
        raise
    book().note("end", run=run, how="returned")


@job(name="chaos.noop", retry=RETRY)
async def noop(context: JobContext, tag: str) -> None:
    with attempt(context):
        pass


@job(name="chaos.short", retry=RETRY)
def short(context: JobContext, tag: str) -> str:
    with attempt(context) as run:
        return run


@job(name="chaos.nap", retry=RETRY)
async def nap(context: JobContext, tag: str, seconds: float) -> str:
    with attempt(context) as run:
        await asyncio.sleep(seconds)
        return run


@job(name="chaos.snooze", retry=RETRY)
def snooze(context: JobContext, tag: str, seconds: float) -> None:
    with attempt(context):
        time.sleep(seconds)


@job(name="chaos.flaky", retry=RETRY)
async def flaky(context: JobContext, tag: str, failures: int) -> str:
    """Raises until so many attempts have failed."""
    with attempt(context) as run:
        if context.job.attempts < failures:
            raise Hiccup(tag)
        return run


@job(name="chaos.once", max_retries=0)
def once(context: JobContext, tag: str, seconds: float) -> str:
    with attempt(context) as run:
        time.sleep(seconds)
        return run


EFFECT = "insert into chaos.effect (job_id, run) values (%s, %s)"


@job(name="chaos.effect", transactional=True, retry=RETRY)
def effect(context: JobContext, tag: str, seconds: float) -> None:
    with attempt(context) as run:
        context.connection.execute(EFFECT, (context.job.id, run))
        time.sleep(seconds)


@job(name="chaos.aeffect", transactional=True, retry=RETRY)
async def aeffect(context: JobContext, tag: str, seconds: float) -> str:
    with attempt(context) as run:
        await context.connection.execute(EFFECT, (context.job.id, run))
        await asyncio.sleep(seconds)
        return run
