"""A producer in a process of its own: `python -m tests.chaos.producer sync|async DSN SEED PACE`, until its input ends.

Enqueues in every way there is, and writes down before each call what it will do, and afterwards what it was told.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import psycopg

from dbjobq import AsyncJobQueue, JobQueue, PostgresStorage, StorageUnavailable
from dbjobq.ids import new_id
from tests.chaos import jobs
from tests.chaos.ledger import Book

__all__: list[str] = []

THREADS: Final = 3
TASKS: Final = 6
NOTE: Final = "insert into chaos.note (tag) values (%s)"
PAUSE: Final = 0.12
"""Seconds on average between the calls of one thread or task, at a pace of 1."""


@dataclass(slots=True, kw_only=True)
class Plan:
    """A call to come."""

    number: str
    kind: str
    function: Callable[..., Any]
    rows: list[dict[str, Any]]
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def own_id(self) -> str | None:
        return self.options.get("id")


KINDS: Final = {"one": 10, "keyed": 3, "own id": 3, "bulk": 1, "commit": 3, "rollback": 1}


def plans(book: Book, chance: random.Random) -> Iterator[Plan]:
    """Make calls up, and write each down when it is taken."""
    for n in count():
        number = f"{book.pid}.{threading.get_ident()}.{id(chance)}.{n}"
        (kind,) = chance.choices(list(KINDS), list(KINDS.values()))
        function, arguments, options = _job(chance)
        size = chance.randrange(1, 30) if kind == "bulk" else 1
        rows = [{"tag": f"{number}.{row}", **arguments} for row in range(size)]
        if chance.random() < 0.15:
            options["delay"] = chance.uniform(0.1, 1.5)
        if kind == "keyed":
            options["unique_key"] = f"key {chance.randrange(6)}"
        if kind == "own id":
            options["id"] = new_id()
        plan = Plan(number=number, kind=kind, function=function, rows=rows, options=options)
        key = options.get("unique_key")
        book.note("intent", call=number, kind=kind, tags=[row["tag"] for row in rows], key=key)
        yield plan


def _job(chance: random.Random) -> tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]:
    """Return a function, its arguments without the tag, and options."""
    function: Any = chance.choice([jobs.noop, jobs.short, jobs.nap, jobs.snooze, jobs.flaky, jobs.once, jobs.effect])
    if function is jobs.effect and chance.random() < 0.5:
        function = jobs.aeffect
    if function in {jobs.noop, jobs.short}:
        return function, {}, {"max_retries": 20}
    if function is jobs.flaky:
        return function, {"failures": chance.randrange(4)}, {"max_retries": chance.choice([1, 20])}
    options = {} if function is jobs.once else {"max_retries": 20}
    longest = 2.0 if chance.random() < 0.3 else 0.2
    return function, {"seconds": round(chance.uniform(0.0, longest), 3)}, options


class Undone(Exception):  # noqa: N818 - wanted
    """Raised to roll a transaction back."""


class Sync:
    """Enqueues from several threads, which share a pool of one connection."""

    def __init__(self, book: Book, dsn: str, seed: int, pace: float) -> None:
        self._book, self._dsn, self._seed, self._pace = book, dsn, seed, pace
        self._storage = PostgresStorage(dsn, max_size=1, timeout=5)
        self._queue = JobQueue(self._storage)
        self._stop = threading.Event()

    def run(self) -> None:
        threads = [threading.Thread(target=self._produce, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        self._stop.set()
        for thread in threads:
            thread.join()
        self._storage.close()

    def _produce(self, n: int) -> None:
        chance = random.Random(self._seed * 100 + n)
        for plan in plans(self._book, chance):
            self._call(plan)
            if self._stop.wait(PAUSE / self._pace * chance.uniform(0, 2)):
                return

    def _call(self, plan: Plan) -> None:
        while True:
            try:
                ids = self._enqueue(plan)
            except Undone:
                self._book.note("rolled back", call=plan.number)
            except (StorageUnavailable, psycopg.OperationalError) as error:
                self._book.note("error", call=plan.number, error=str(error))
                if plan.own_id and not self._stop.wait(0.1):
                    continue
            else:
                self._book.note("acknowledged", call=plan.number, ids=ids)
            return

    def _enqueue(self, plan: Plan) -> list[str]:
        if plan.kind in {"commit", "rollback"}:
            with psycopg.connect(self._dsn) as connection:
                connection.execute(NOTE, (plan.rows[0]["tag"],))
                options = self._queue.options(**plan.options, connection=connection)
                ids = [options.enqueue(plan.function, **plan.rows[0])]
                if plan.kind == "rollback":
                    raise Undone
            return ids
        options = self._queue.options(**plan.options)
        if plan.kind == "bulk":
            return list(options.enqueue_many(plan.function, plan.rows))
        return [options.enqueue(plan.function, **plan.rows[0])]


class Async:
    """The same from tasks of one event loop, which share connections and commits."""

    def __init__(self, book: Book, dsn: str, seed: int, pace: float) -> None:
        self._book, self._dsn, self._seed, self._pace = book, dsn, seed, pace
        self._queue = AsyncJobQueue(PostgresStorage(dsn, max_size=3, timeout=5))

    async def run(self) -> None:
        stop = asyncio.Event()
        tasks = [asyncio.create_task(self._produce(n, stop)) for n in range(TASKS)]
        await asyncio.to_thread(sys.stdin.read)
        stop.set()
        await asyncio.gather(*tasks)
        await self._queue.close()

    async def _produce(self, n: int, stop: asyncio.Event) -> None:
        chance = random.Random(self._seed * 100 + n)
        for plan in plans(self._book, chance):
            await self._call(plan, stop)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), PAUSE / self._pace * chance.uniform(0, 2))
            if stop.is_set():
                return

    async def _call(self, plan: Plan, stop: asyncio.Event) -> None:
        while True:
            try:
                ids = await self._enqueue(plan)
            except Undone:
                self._book.note("rolled back", call=plan.number)
            except (StorageUnavailable, psycopg.OperationalError) as error:
                self._book.note("error", call=plan.number, error=str(error))
                if plan.own_id and not stop.is_set():
                    await asyncio.sleep(0.1)
                    continue
            else:
                self._book.note("acknowledged", call=plan.number, ids=ids)
            return

    async def _enqueue(self, plan: Plan) -> list[str]:
        if plan.kind in {"commit", "rollback"}:
            async with await psycopg.AsyncConnection.connect(self._dsn) as connection:
                await connection.execute(NOTE, (plan.rows[0]["tag"],))
                options = self._queue.options(**plan.options, connection=connection)
                ids = [await options.enqueue(plan.function, **plan.rows[0])]
                if plan.kind == "rollback":
                    raise Undone
            return ids
        options = self._queue.options(**plan.options)
        if plan.kind == "bulk":
            return list(await options.enqueue_many(plan.function, plan.rows))
        return [await options.enqueue(plan.function, **plan.rows[0])]


def main() -> None:
    how, dsn, seed, pace = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    book = Book()
    if how == "sync":
        Sync(book, dsn, seed, pace).run()
    else:
        asyncio.run(Async(book, dsn, seed, pace).run())


if __name__ == "__main__":
    main()
