"""Tells whether a function has run when its call returns, and awaits the rest of it if not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Generator, Mapping
from concurrent.futures import Future
from contextlib import AsyncContextDecorator, ContextDecorator, suppress
from functools import partial
from inspect import isawaitable
from types import FunctionType, MethodType
from typing import Any, Final

from dbjobq.jobs.registry import JobType

__all__ = ["awaited", "is_final", "settled"]

_PLAIN: Final = frozenset({bool, dict, float, int, list, str, tuple, type(None)})
_NOT_RUN: Final[Mapping[Any, str]] = {
    Generator: "a generator",
    AsyncGenerator: "an async generator",
    (ContextDecorator, AsyncContextDecorator): "a context manager",
    (FunctionType, MethodType, partial): "a function",
}
"""Results of a call that has not run the body it was made for."""

_FUTURE: Final[Any] = Future  # of whatever type


def is_final(result: object) -> bool:
    """Tell whether a function has run, and this is its result: nothing that is still to be awaited, or called."""
    return type(result) in _PLAIN or not (isawaitable(result) or isinstance(result, _FUTURE) or _how_not_run(result))


async def settled(result: Any, task: JobType) -> Any:
    """Return what is left when everything in a function's result that can be awaited has been awaited.

    A decorator may hide from `@job` that a function is an `async def`.

    Args:
        result: The value that the function returned.
        task: The job's type.

    Raises:
        TypeError: The function's body has not run, and will not; or it cannot run in its transaction any more.
    """
    while True:
        if how := _how_not_run(result):
            raise TypeError(
                f"{task.name} returned {how}, so its body has not run: a job's function, and whatever decorates it, "
                "must do the work when it is called, or return something that can be awaited"
            )
        if isinstance(result, _FUTURE):
            result = asyncio.wrap_future(result)
        if not isawaitable(result):
            return result
        if task.transactional and not task.is_async:
            _drop(result)
            raise TypeError(
                f"{task.name} is a def for @job, with a thread's connection, but returned something to be awaited: "
                "with transactional=True, what decorates an async def must be an async def, too"
            )
        result = await result


async def awaited(call: Awaitable[Any], task: JobType) -> Any:
    """Return the result of an `async def`'s call; see `settled`."""
    result = await call
    return result if is_final(result) else await settled(result, task)


def _how_not_run(result: object) -> str | None:
    if isawaitable(result):  # some coroutines are generators
        return None
    return next((said for kinds, said in _NOT_RUN.items() if isinstance(result, kinds)), None)


def _drop(result: Awaitable[Any]) -> None:
    """Close a coroutine, so that Python does not warn that nobody has awaited it."""
    with suppress(Exception):
        getattr(result, "close", bool)()
