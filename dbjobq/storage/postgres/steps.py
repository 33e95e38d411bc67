"""The steps that a call to PostgreSQL consists of, and how they are performed on a psycopg connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

import psycopg
from psycopg.pq import Format
from psycopg.rows import dict_row, tuple_row
from psycopg.types.string import TextLoader

from dbjobq.storage.postgres.connect.deadline import Deadline
from dbjobq.storage.postgres.connect.prepared import PreparedEnqueue

__all__ = ["Call", "CopyIn", "Make", "Send", "Sender", "adrive", "aperform", "drive", "perform"]

R = TypeVar("R")
S = TypeVar("S")

TEXT_OID: Final = psycopg.adapters.types["text"].oid


class Send(NamedTuple):
    """A statement that returns rows, and its values; answered by its rows."""

    statement: bytes
    params: Mapping[str, Any]
    as_dicts: bool = False
    """Whether rows are dictionaries by the names of their columns, with JSON as text."""
    binary: bool = False
    """Whether values come in binary form, which the session's DateStyle does not change; for psycopg's types only."""
    prepared: PreparedEnqueue | None = None
    """A faster way for a statement that is a transaction by itself (prepared.py); its rows are empty then."""


class CopyIn(NamedTuple):
    """A COPY and its text, which may be made while the server reads the text before; answered by no rows."""

    statement: bytes
    pieces: Iterable[bytes]


Call: TypeAlias = Generator[Send | CopyIn, Any, R]
"""A generator that yields steps, is sent their rows, and returns the call's result."""

Make: TypeAlias = Callable[[bool], Call[R]]
"""Starts a call; its argument tells whether the call was started before, and may have happened."""


class Sender(Protocol):
    """Makes steps of the statements in `sql/`, by their names; see `PostgresStorage`."""

    def __call__(
        self, name: str, params: Mapping[str, Any] | None = None, *, as_dicts: bool = False, binary: bool = False
    ) -> Send:
        """Return the step; see `Send`."""
        ...


def drive(call: Generator[S, Any, R], perform: Callable[[S], Any]) -> R:
    """Make a call, step by step."""
    answer: Any = None
    while True:
        try:
            step = call.send(answer)
        except StopIteration as stop:
            value: R = stop.value
            return value
        answer = perform(step)


async def adrive(call: Generator[S, Any, R], perform: Callable[[S], Awaitable[Any]]) -> R:
    """Make a call on the running event loop."""
    answer: Any = None
    while True:
        try:
            step = call.send(answer)
        except StopIteration as stop:
            value: R = stop.value
            return value
        answer = await perform(step)


def perform(connection: psycopg.Connection[Any], step: Send | CopyIn, deadline: Deadline | None = None) -> Any:
    """Perform a step on a psycopg connection, whatever its `row_factory`, and return the rows.

    Each piece that a COPY sends renews the deadline.
    """
    if isinstance(step, CopyIn):
        with psycopg.Cursor(connection).copy(step.statement) as copy:
            for piece in step.pieces if deadline is None else deadline.renewed_by(step.pieces):
                copy.write(piece)
        return []
    if step.prepared is not None and (rows := step.prepared.execute(connection, step.params)) is not None:
        return [()] * rows
    cursor: psycopg.Cursor[Any] = psycopg.Cursor(connection, row_factory=dict_row if step.as_dicts else tuple_row)
    if step.as_dicts:
        _read_json_as_text(cursor)
    return cursor.execute(step.statement, step.params, binary=step.binary).fetchall()


async def aperform(
    connection: psycopg.AsyncConnection[Any], step: Send | CopyIn, deadline: Deadline | None = None
) -> Any:
    """See `perform`, for an async psycopg connection."""
    if isinstance(step, CopyIn):
        async with psycopg.AsyncCursor(connection).copy(step.statement) as copy:
            for piece in step.pieces if deadline is None else deadline.renewed_by(step.pieces):
                await copy.write(piece)
        return []
    cursor: psycopg.AsyncCursor[Any] = psycopg.AsyncCursor(
        connection, row_factory=dict_row if step.as_dicts else tuple_row
    )
    if step.as_dicts:
        _read_json_as_text(cursor)
    await cursor.execute(step.statement, step.params, binary=step.binary)
    return await cursor.fetchall()


def _read_json_as_text(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]) -> None:
    for format in Format.TEXT, Format.BINARY:  # noqa: A001 - psycopg's name
        cursor.adapters.register_loader("json", cursor.adapters.get_loader(TEXT_OID, format) or TextLoader)
