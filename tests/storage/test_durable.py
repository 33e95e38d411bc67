"""What a worker writes down as done is flushed before anybody builds on it, whatever the server has as its default."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, LiteralString

import pytest

from dbjobq import JobQueue, PostgresStorage
from dbjobq.storage.values import Outcome
from tests.storage.workers import claim, ended, exchange, run, worker

if TYPE_CHECKING:
    from dbjobq.models import Event
    from tests.storage.database import Database

WITNESS: tuple[LiteralString, ...] = (
    "create table public.witness (setting text)",
    """
    create function public.testify() returns trigger language plpgsql as $$ begin
        insert into public.witness values (current_setting('synchronous_commit'));
        return null;
    end $$
    """,
    # A deferred trigger is fired by the COMMIT: it sees what that goes by, however late in the transaction it was set.
    """
    create constraint trigger testify after delete on dbjobq.lease deferrable initially deferred
        for each row execute function public.testify()
    """,
)
"""Notes for each lease that ends what `synchronous_commit` its transaction was committed with."""

EVENTS: list[Event] = ["complete", "fail", "retry", "release"]


@pytest.fixture
def lazy(database: Database) -> Database:
    """A database that does not wait for its disk unless it is told to, with a witness of what it is told."""
    database.rows(
        "do $$ begin execute format('alter database %I set synchronous_commit = off', current_database()); end $$"
    )
    for statement in WITNESS:
        database.rows(statement)
    return database


def committed_with(database: Database) -> list[str]:
    return [row[0] for row in database.rows("select setting from witness")]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("claiming", [False, True], ids=["alone", "with a claim"])
def test_results_in_a_workers_exchange_are_flushed(
    lazy: Database, storage: PostgresStorage, queue: JobQueue, event: Event, claiming: bool
) -> None:
    queue.enqueue_many("f", [{}, {}], max_retries=3)

    async def main() -> None:
        async with worker(storage) as session:
            (held,) = await claim(session, 1)
            step = await exchange(session, [ended(held, event)], int(claiming))
            assert not step.refused

    run(main())
    assert committed_with(lazy) == ["on"]


def test_a_result_with_a_value_is_flushed_like_one_without(
    lazy: Database, storage: PostgresStorage, queue: JobQueue
) -> None:
    queue.enqueue("f")

    async def main() -> None:
        async with worker(storage) as session:
            (held,) = await claim(session)
            await exchange(session, [Outcome(held, "complete", None, "1")])

    run(main())
    assert committed_with(lazy) == ["on"]


def test_results_that_are_written_for_a_blocked_loop_are_flushed(
    lazy: Database, storage: PostgresStorage, queue: JobQueue
) -> None:
    queue.enqueue_many("f", [{}, {}])

    async def main() -> None:
        async with worker(storage) as session:
            first, _ = await claim(session)
            with closing(session.pulse()) as pulse:
                assert pulse.finish([ended(first)]) == {first.id}
                _, released = pulse.take_over([])
                assert len(released) == 1

    run(main())
    assert committed_with(lazy) == ["on", "on"]


def test_what_a_stopping_worker_gives_back_is_flushed(
    lazy: Database, storage: PostgresStorage, queue: JobQueue
) -> None:
    queue.enqueue_many("f", [{}, {}])

    async def main() -> None:
        async with worker(storage) as session:
            assert len(await claim(session)) == 2
            assert len(await session.release()) == 2

    run(main())
    assert committed_with(lazy) == ["on", "on"]
