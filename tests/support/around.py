"""Middleware, and jobs of each kind to be run within it. They tell of themselves by a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

from dbjobq import Discard, JobContext, job, middleware

layer: Final[ContextVar[str]] = ContextVar("layer", default="none")


def say(file: str, word: str) -> None:
    with Path(file).open("a") as diary:
        diary.write(f"{word}\n")


def noted(ctx: JobContext, name: str) -> Iterator[None]:
    file = ctx.job.data["file"]
    say(file, f"{name} in")
    token = layer.set(name)
    try:
        yield
    except BaseException as error:
        say(file, f"{name} sees {type(error).__name__}")
        raise
    finally:
        layer.reset(token)
    say(file, f"{name} out")


@middleware
def everywhere(ctx: JobContext) -> Iterator[None]:
    if "file" in ctx.job.data:
        yield from noted(ctx, "everywhere")
    else:
        yield


def of_worker(ctx: JobContext) -> Iterator[None]:
    yield from noted(ctx, "worker")


def of_type(ctx: JobContext) -> Iterator[None]:
    yield from noted(ctx, "type")


async def of_coroutines(ctx: JobContext) -> AsyncIterator[None]:
    await asyncio.sleep(0)
    for _ in noted(ctx, "async"):
        yield


def body(file: str, how: str) -> str:
    say(file, f"function within {layer.get()}")
    if how == "raise":
        raise Discard("from inside")
    return how


async def wait(how: str) -> None:
    if how == "wait":
        await asyncio.get_running_loop().create_future()


@job(name="around.coroutine", middleware=[of_type])
async def coroutine(file: str, how: str = "") -> str:
    await wait(how)
    return body(file, how)


@job(name="around.thread", middleware=of_type)
def thread(file: str, how: str = "") -> str:
    return body(file, how)


@job(name="around.process", executor="process", middleware=[of_type])
def process(file: str, how: str = "") -> str:
    return body(file, how)


@job(name="around.aprocess", executor="process", middleware=[of_type])
async def aprocess(file: str, how: str = "") -> str:
    await wait(how)
    return body(file, how)


@job(name="around.transaction", transactional=True, middleware=[of_type])
def transaction(ctx: JobContext, file: str, how: str = "") -> str:
    ctx.connection.execute("select 1")
    return body(file, how)


@job(name="around.atransaction", transactional=True, middleware=[of_type])
async def atransaction(ctx: JobContext, file: str, how: str = "") -> str:
    await ctx.connection.execute("select 1")
    await wait(how)
    return body(file, how)


@job(name="around.disguised", middleware=[of_type])
def disguised(file: str, how: str = "") -> Any:
    """What is left to be awaited runs within the middleware, too."""

    async def rest() -> str:
        await wait(how)
        return body(file, how)

    return rest()
