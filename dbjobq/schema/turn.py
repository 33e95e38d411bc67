"""How migrations take their locks: one process at a time, and without others waiting behind them (docs/migrations.md).

A transaction that waits for a lock on a table makes all later ones wait behind it. So a migration waits for half a
second, then lets the others pass, and tries again later.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import psycopg
from psycopg import errors as pg

from dbjobq.checks import check_seconds
from dbjobq.errors import StorageUnavailable
from dbjobq.events.bus import emit
from dbjobq.events.names import MIGRATE_BLOCKED, MIGRATE_WAITING
from dbjobq.storage.postgres.connect.errors import is_conflict, translated
from dbjobq.storage.postgres.connect.way import SyncConnection, Way
from dbjobq.storage.postgres.statements import Statements

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Patience", "Turn", "migrating"]

FIRST_LOCK_PAUSE: Final = 0.5
"""Seconds before locks are asked for again: as long as others had to wait, so that they can make up for it."""
LONGEST_LOCK_PAUSE: Final = 5.0
"""Seconds up to which these pauses grow."""
TURN_PAUSES: Final = (0.05, 1.0)
"""The first and the longest pause, in seconds, between looks whether another process has done the work."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a migration waits."""

    lock_timeout: float = 0.5
    """Seconds that one transaction waits for all of its locks; others may be waiting behind it."""
    timeout: float = 300.0
    """Seconds for all waiting: until the locks are there at last, and for another process that migrates."""

    def __post_init__(self) -> None:
        check_seconds(self.lock_timeout, "lock_timeout", above_zero=True)
        check_seconds(self.timeout, "timeout", above_zero=True)


class Turn:
    """The right to migrate one schema, which no other process has meanwhile.

    The right is two locks, held by a transaction on a connection of its own: that works behind a pooler, and nothing is
    left locked when this process dies. `create index concurrently` does not wait for that transaction, which has no
    snapshot. One is an advisory lock, which works before there are tables; it counts only if its holder could migrate,
    since whoever may connect can take it. The other is on the version table, once that has a row: the first migration
    alters the table. Only those can take it who may write there.

    Args:
        holder: The connection whose transaction has the lock.
        connection: Another connection, for Alembic, with no transaction open.
        statements: The statements for the schema.
        patience: How long to wait.
        by: When the waiting is over, on the clock of `time.monotonic`.
    """

    def __init__(
        self, holder: SyncConnection, connection: Connection, statements: Statements, patience: Patience, by: float
    ) -> None:
        self.holder, self.connection, self.patience = holder, connection, patience
        self._statements, self._by = statements, by

    def run(self, work: Callable[[Connection], None]) -> None:
        """Do work that takes locks, again and again until it gets them in time.

        Args:
            work: Called with the connection; after an error it is called again, and goes on where it was.

        Raises:
            StorageUnavailable: The work did not get its locks within `Patience.timeout`. The message says who has them.
        """
        from sqlalchemy.exc import DBAPIError, PendingRollbackError

        for tries in itertools.count():
            try:
                work(self.connection)
            except DBAPIError as error:
                if not isinstance(error.orig, pg.LockNotAvailable) and not is_conflict(error.orig or error):
                    raise
                self.connection.rollback()
            except PendingRollbackError as error:  # Alembic goes on after a lost connection, and so hides the loss
                raise error.__context__ or error from None
            else:
                return
            self._wait(tries)

    def _wait(self, tries: int) -> None:
        self.holder.execute("select pg_stat_clear_snapshot()")  # a transaction sees pg_stat_activity as it was first
        rows = self.holder.execute(self._statements["blockers"]).fetchall()
        who = "; ".join(map(_described, rows)) or "nobody any more"
        if (left := self._by - time.monotonic()) <= 0:
            raise StorageUnavailable(
                f"the locks to migrate schema {self._statements.schema!r} could not be had within "
                f"{self.patience.timeout:g} s; they were held by {who}. End that, and run `dbjobq migrate` again"
            )
        pause = min(_pause(tries, FIRST_LOCK_PAUSE, LONGEST_LOCK_PAUSE), left)
        emit(MIGRATE_BLOCKED, by=who, retry_in=round(pause, 2))
        time.sleep(pause)


def _described(row: Sequence[Any]) -> str:
    pid, name, state, seconds, tables = row
    since = "" if seconds is None else f" for {seconds:.0f} s"
    return f"pid {pid} ({name or 'unnamed'}, {state}{since}: {tables})"


def _pause(tries: int, first: float, longest: float) -> float:
    """Return the seconds before the next try: they double, and are shortened by up to half at random."""
    return min(first * 2.0 ** min(tries, 16), longest) * (1 - random.random() / 2)  # noqa: S311 - spread, not secrecy


@contextmanager
def migrating(conninfo: str | None, schema: str, patience: Patience) -> Generator[Turn]:
    """Wait for the right to migrate a schema, and keep it for the block.

    Args:
        conninfo: A DSN; None as in `PostgresStorage`.
        schema: The schema.
        patience: How long to wait.

    Raises:
        ConfigError: The DSN does not work.
        StorageUnavailable: PostgreSQL does not answer, or another process has been migrating for all that time.
    """
    from sqlalchemy import create_engine, pool

    way = Way(conninfo)

    def connect() -> SyncConnection:
        return way.connect(autocommit=False, prepare_threshold=None)

    by, statements = time.monotonic() + patience.timeout, Statements(schema)
    with translated(schema), closing(connect()) as holder:
        holder.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # others keep a snapshot for the transaction
        _take_turn(holder, statements, patience, by)
        engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=pool.NullPool)
        with engine.connect() as connection:
            yield Turn(holder, connection, statements, patience, by)


def _take_turn(holder: SyncConnection, statements: Statements, patience: Patience, by: float) -> None:
    for tries in itertools.count():
        if (other := _before_us(holder, statements)) is None:
            return
        holder.rollback()
        if (left := by - time.monotonic()) <= 0:
            raise StorageUnavailable(
                f"another process, of pid {other} on the server, has been migrating schema {statements.schema!r} for "
                f"{patience.timeout:g} s: wait for it, and run `dbjobq migrate` again"
            )
        if not tries:
            emit(MIGRATE_WAITING, by=f"another migration, pid {other}")
        time.sleep(min(_pause(tries, *TURN_PAUSES), left))


def _before_us(holder: SyncConnection, statements: Statements) -> int | None:
    """Take the turn and return None; else return the server's process id of who has it, or 0 if that has just gone."""
    lockable = all(holder.execute(statements[name]).fetchone() == (True,) for name in ("installed", "begun"))
    holder.rollback()  # even reading it would be in the way of the migration that alters it
    ((mine, other, entitled, _),) = holder.execute(statements["migrate_turn"]).fetchall()
    if not mine and entitled:
        return cast("int", other)
    if not lockable:
        return None
    try:
        holder.execute(statements["migrate_lock"])
    except pg.LockNotAvailable:
        holder.rollback()
        found = holder.execute(statements["migrate_holder"]).fetchone()
        return 0 if found is None else cast("int", found[0])
    return None
