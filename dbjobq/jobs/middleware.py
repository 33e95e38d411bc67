"""Middleware: generator functions that run around each attempt of a job. Here they are registered, and checked."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeAlias, TypeVar

from dbjobq.jobs.context import JobContext
from dbjobq.jobs.signatures import signature

__all__ = ["Middleware", "checked_middleware", "is_async_middleware", "middleware", "middleware_everywhere", "name_of"]

Middleware: TypeAlias = Callable[[JobContext], Iterator[None]] | Callable[[JobContext], AsyncIterator[None]]
"""A generator function that is given the context of an attempt, and yields once: there the job's function runs."""

M = TypeVar("M", bound=Middleware)

_everywhere: tuple[Middleware, ...] = ()


def middleware(function: M, /) -> M:
    """Register a generator function that runs around each attempt in this process (docs/middleware.md).

        @middleware
        def tenant(ctx: JobContext) -> Iterator[None]:
            with tenants.use(ctx.job.data["tenant"]):
                yield

    The function is given the attempt's `JobContext`, and yields once: there the job's function runs, in the same task,
    thread or process. What the job's function raises comes out at the `yield`. Neither arguments nor result can be
    changed, and an exception that is caught is still the attempt's failure; raising another one replaces it. An
    exception before the `yield` fails the attempt, and the job's function is not called; one after it fails an attempt
    that would have been completed.

    An async generator function runs around `async def` jobs only.

    Middleware that is registered so is the outermost, in the order of registration; within it runs that of
    `Worker(middleware=[…])`, then that of `@job(middleware=[…])`. Registered while a worker runs, it counts from the
    next attempts on. A function that takes another's place in its module (a module that is loaded again) replaces it.

    Args:
        function: The generator function.

    Returns:
        The function itself.

    Raises:
        TypeError: It is not a generator function, or cannot be called with a context alone.
    """
    global _everywhere  # noqa: PLW0603 - read without a lock, replaced as a whole
    _check(function)
    if any(_replaces(function, other) for other in _everywhere):
        _everywhere = tuple(function if _replaces(function, other) else other for other in _everywhere)
    else:
        _everywhere = (*_everywhere, function)
    return function


def middleware_everywhere() -> tuple[Middleware, ...]:
    """Return the middleware of this process, the outermost first: the same tuple until some is registered."""
    return _everywhere


def checked_middleware(
    given: Iterable[Middleware] | Middleware, where: str, *, is_async: bool = True
) -> tuple[Middleware, ...]:
    """Return the middleware of a job type or a worker, the outermost first.

    Args:
        given: One, or several.
        where: Who was given it, for the error.
        is_async: Whether what runs within it is an `async def`.

    Raises:
        TypeError: One of them is not a generator function, or is an async one around a `def`.
    """
    functions = (given,) if callable(given) else tuple(given)
    for function in functions:
        _check(function)
        if not is_async and is_async_middleware(function):
            raise TypeError(
                f"{where}(middleware=[{name_of(function)}]): an async generator runs around an async def only; "
                "around a def, give it a generator"
            )
    return functions


def is_async_middleware(function: Middleware) -> bool:
    """Tell whether a middleware is an async generator function."""
    return inspect.isasyncgenfunction(function)


def name_of(function: object) -> str:
    """Return the name of a middleware, for people."""
    name = getattr(function, "__qualname__", None)
    return repr(function) if name is None else f"{getattr(function, '__module__', '?')}.{name}"


def _check(function: Any) -> None:
    if not (inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)):
        raise TypeError(
            f"middleware {name_of(function)}: must be a generator function that yields once, "
            "without @contextmanager around it"
        )
    try:
        signature(function).bind(None)
    except TypeError as error:
        raise TypeError(f"middleware {name_of(function)}: must take one argument, the JobContext: {error}") from None


def _replaces(function: Any, other: Any) -> bool:
    """Tell whether a function is another, or the same one loaded again."""
    if function is other:
        return True
    names = [(getattr(it, "__module__", None), getattr(it, "__qualname__", None)) for it in (function, other)]
    return names[0] == names[1] and names[0][1] is not None and "<" not in names[0][1]
