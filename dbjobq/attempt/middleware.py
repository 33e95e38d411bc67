"""Runs middleware around the call of a function: one layer is one context manager made from one generator."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Literal, cast

from dbjobq.jobs.context import JobContext
from dbjobq.jobs.middleware import Middleware, is_async_middleware, name_of
from dbjobq.jobs.registry import JobType

__all__ = ["surrounded"]

_NEVER: Final = "the middleware {} did not yield, so the job's function was not called: it must yield exactly once"
_TWICE: Final = "the middleware {} yielded twice: it must yield exactly once"

_Call = Callable[[Any, Any, Any], Any]


def surrounded(call: _Call, task: JobType, layers: Sequence[Middleware]) -> _Call:
    """Return a call that runs within middleware; its holder must have the context.

    Args:
        call: Calls the function; an `async def` is awaited in it.
        task: The function's type.
        layers: The middleware, the outermost first. An async one is left out around a `def`.
    """
    for layer in reversed(layers):
        if task.is_async:
            call = _around_async(call, layer)
        elif not is_async_middleware(layer):
            call = _around(call, layer)
    return call


def _around(call: _Call, layer: Middleware) -> _Call:
    def called(claim: Any, connection: Any, holder: Any) -> Any:
        with _Layer(layer, holder.context):
            return call(claim, connection, holder)

    return called


def _around_async(call: _Call, layer: Middleware) -> _Call:
    if is_async_middleware(layer):

        async def called(claim: Any, connection: Any, holder: Any) -> Any:
            async with _AsyncLayer(layer, holder.context):
                return await call(claim, connection, holder)

    else:

        async def called(claim: Any, connection: Any, holder: Any) -> Any:
            with _Layer(layer, holder.context):
                return await call(claim, connection, holder)

    return called


class _Layer:
    """Runs a generator up to its `yield` before the function, and to its end after it.

    Unlike `contextlib.contextmanager` it lets no exception vanish, says which middleware is at fault, and is quicker.
    """

    __slots__ = ("_generator", "_middleware")

    def __init__(self, middleware: Middleware, context: JobContext) -> None:
        self._middleware = middleware
        self._generator = cast("Generator[None]", middleware(context))

    def __enter__(self) -> None:
        try:
            next(self._generator)
        except StopIteration:
            raise RuntimeError(_NEVER.format(name_of(self._middleware))) from None
        except BaseException as error:
            _note(error, self._middleware)
            raise

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        try:
            if error is None:
                next(self._generator)
            else:
                self._generator.throw(error)
        except StopIteration:
            return False
        except BaseException as raised:
            if _is_same(raised, error, trace):
                return False
            _note(raised, self._middleware)
            raise
        with suppress(Exception):
            self._generator.close()
        raise RuntimeError(_TWICE.format(name_of(self._middleware))) from error


class _AsyncLayer:
    """The same of an async generator."""

    __slots__ = ("_generator", "_middleware")

    def __init__(self, middleware: Middleware, context: JobContext) -> None:
        self._middleware = middleware
        self._generator = cast("AsyncGenerator[None]", middleware(context))

    async def __aenter__(self) -> None:
        try:
            await anext(self._generator)
        except StopAsyncIteration:
            raise RuntimeError(_NEVER.format(name_of(self._middleware))) from None
        except BaseException as error:
            _note(error, self._middleware)
            raise

    async def __aexit__(
        self, _type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        try:
            if error is None:
                await anext(self._generator)
            else:
                await self._generator.athrow(error)
        except StopAsyncIteration:
            return False
        except BaseException as raised:
            if _is_same(raised, error, trace):
                return False
            _note(raised, self._middleware)
            raise
        with suppress(Exception):
            await self._generator.aclose()
        raise RuntimeError(_TWICE.format(name_of(self._middleware))) from error


def _is_same(raised: BaseException, error: BaseException | None, trace: TracebackType | None) -> bool:
    """Tell whether the function's own exception has come through; it keeps the traceback that it had.

    Python turns a StopIteration that leaves a generator into a RuntimeError.
    """
    wrapped = isinstance(error, StopIteration | StopAsyncIteration) and isinstance(raised, RuntimeError)
    if error is not None and (raised is error or (wrapped and raised.__cause__ is error)):
        error.__traceback__ = trace
        return True
    return False


def _note(error: BaseException, middleware: Middleware) -> None:
    """Say whose exception it is, where its text is stored."""
    with suppress(Exception):
        error.add_note(f"Raised by the middleware {name_of(middleware)}.")
