"""What a thread beside a blocked event loop writes in its place, and what it leaves to whoever is writing it."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

import psycopg

from tests.storage.workers import claim, ended, run, worker

if TYPE_CHECKING:
    from dbjobq import JobQueue, PostgresStorage

IN_VAIN = 20.0
"""Seconds after which a call is taken to wait for a lock that is not given back."""


def test_results_that_are_written_for_a_blocked_loop_pass_over_those_that_somebody_is_writing(
    storage: PostgresStorage, queue: JobQueue, dsn: str
) -> None:
    """The transaction may be one that only the loop could end: to wait for it would be to wait for ever."""
    queue.enqueue_many("f", [{}, {}])

    async def main() -> None:
        async with worker(storage) as session:
            held, free = await claim(session)
            both = [ended(held), ended(free)]
            with closing(session.pulse()) as pulse:
                with psycopg.connect(dsn) as other:
                    other.execute("select from dbjobq.lease where job_id = %s for update", (held.id,))
                    written = await asyncio.wait_for(asyncio.to_thread(pulse.finish, both), IN_VAIN)
                    assert written == {free.id}
                    assert [job.id for job in queue.list_jobs("completed")] == [free.id]
                assert pulse.finish(both[:1]) == {held.id}

    run(main())
    assert queue.count("completed") == 2
