"""`unique_key`, and ids of one's own."""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbjobq import AsyncJobQueue, BaseStorage, Job, JobQueue
from tests.queue.jobs import anything, crash

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.storage.backstage import Backstage
    from tests.storage.database import Database

pytestmark = pytest.mark.every_storage


def claimed(queue: JobQueue, lease: float = 300.0) -> Job:
    job = queue.dequeue(lease=lease)
    assert job is not None
    return job


def test_a_key_is_held_while_its_job_is_pending(queue: JobQueue) -> None:
    one = queue.options(unique_key="k").enqueue(anything, n=1)
    two = queue.options(unique_key="k", priority=9, queue="other").enqueue(anything, n=2)
    assert two == one
    assert [(job.data, job.priority, job.queue) for job in queue.list_jobs()] == [({"n": 1}, 5, "default")]


def test_a_key_is_held_while_its_job_waits_to_become_due(queue: JobQueue) -> None:
    one = queue.options(unique_key="k", delay=100).enqueue(anything)
    assert queue.options(unique_key="k").enqueue(anything) == one
    assert queue.dequeue() is None


def test_a_key_is_held_while_its_job_runs_and_freed_by_its_completion(queue: JobQueue) -> None:
    keyed = queue.options(unique_key="k")
    one = keyed.enqueue(anything)
    job = claimed(queue)
    assert keyed.enqueue(anything) == one
    queue.complete(job)
    two = keyed.enqueue(anything)
    assert two != one
    assert keyed.enqueue(anything) == two


def test_a_key_is_held_while_its_job_waits_for_a_retry_and_freed_when_it_fails_for_good(
    queue: JobQueue, backstage: Backstage
) -> None:
    keyed = queue.options(unique_key="k", max_retries=1)
    one = keyed.enqueue(anything)
    queue.fail(claimed(queue), "first")
    assert keyed.enqueue(anything) == one
    backstage.skip(3)
    queue.fail(claimed(queue), "second")
    assert queue.count("failed") == 1
    assert keyed.enqueue(anything) != one


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("delay", [0, 50])
def test_a_key_is_freed_when_its_job_is_cancelled(
    queue: JobQueue, backstage: Backstage, running: bool, delay: float
) -> None:
    keyed = queue.options(unique_key="k", delay=delay)
    one = keyed.enqueue(anything)
    if running:
        backstage.skip(51)
        claimed(queue)
    assert queue.cancel(one) is True
    assert keyed.enqueue(anything) != one


def test_a_key_is_held_through_a_rescue_and_freed_when_it_was_the_last(
    queue: JobQueue, backstage: Backstage, rescued: Callable[[], list[str]]
) -> None:
    keyed = queue.options(unique_key="k", max_retries=1)
    one = keyed.enqueue(anything)
    for _ in range(2):
        assert keyed.enqueue(anything) == one
        claimed(queue, lease=10)
        backstage.skip(11)
        assert rescued() == [one]
    assert queue.count("failed") == 1
    assert keyed.enqueue(anything) != one


def test_a_retry_takes_its_key_back_if_it_is_free(queue: JobQueue) -> None:
    keyed = queue.options(unique_key="k")
    one = keyed.enqueue(anything)
    queue.cancel(one)
    assert queue.retry(one) is True
    assert keyed.enqueue(anything) == one


def test_a_retry_does_not_fail_because_another_job_has_its_key(queue: JobQueue) -> None:
    keyed = queue.options(unique_key="k")
    one = keyed.enqueue(anything, n=1)
    queue.cancel(one)
    two = keyed.enqueue(anything, n=2)
    assert queue.retry(one) is True
    assert keyed.enqueue(anything) == two
    jobs = [claimed(queue), claimed(queue)]
    assert [job.id for job in jobs] == [two, one]  # the retried one became due later
    queue.complete(jobs[1])
    assert keyed.enqueue(anything) == two  # whose key it is
    queue.complete(jobs[0])
    assert keyed.enqueue(anything) not in {one, two}


def test_keys_do_not_depend_on_queue_or_function(queue: JobQueue) -> None:
    one = queue.options(unique_key="k", queue="a").enqueue(anything)
    assert queue.options(unique_key="k", queue="b").enqueue(crash, "x") == one
    assert queue.options(unique_key="K").enqueue(anything) != one


def at_once(threads: int, call: Callable[[int], str]) -> list[str]:
    barrier = Barrier(threads)

    def one(number: int) -> str:
        barrier.wait()
        return call(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(threads)))


def test_eight_threads_that_enqueue_one_key_at_once_make_one_job(plain: JobQueue) -> None:
    for round_ in range(5):
        ids = at_once(8, lambda n, r=round_: plain.options(unique_key=f"k{r}").enqueue(anything, n=n))  # type: ignore[misc]
        assert len(set(ids)) == 1
    assert plain.count() == 5


def test_enqueues_of_a_key_that_ends_all_the_time_return_jobs_that_were_there(plain: JobQueue) -> None:
    def mixed(number: int) -> str:
        last = ""
        for _ in range(25):
            if number % 2:
                last = plain.options(unique_key="k").enqueue(anything, n=number)
            elif (job := plain.dequeue()) is not None:
                plain.complete(job)
        return last

    ids = {i for i in at_once(6, mixed) if i}
    assert all(plain.get_job(i) for i in ids)
    assert plain.count("pending") <= 1


def test_tasks_that_enqueue_one_key_at_once_make_one_job(storage: BaseStorage) -> None:
    async def main() -> set[str]:
        async with AsyncJobQueue(storage) as queue:
            keyed = queue.options(unique_key="k")
            return set(await asyncio.gather(*(keyed.enqueue(anything, n=n) for n in range(8))))

    assert len(asyncio.run(main())) == 1


# Ids of one's own.


def test_enqueueing_an_id_again_changes_nothing(queue: JobQueue) -> None:
    own = uuid.uuid4()
    one = queue.options(id=own).enqueue(anything, n=1)
    two = queue.options(id=str(own).upper(), priority=8, delay=5).enqueue(crash, "x")
    assert one == two == str(own)
    assert [(job.data, job.priority) for job in queue.list_jobs()] == [({"n": 1}, 5)]
    queue.complete(claimed(queue))
    assert queue.options(id=own).enqueue(anything) == one
    assert queue.stats()["completed"] == queue.count() == 1


def test_an_id_can_be_enqueued_again_while_its_key_is_held(queue: JobQueue) -> None:
    own = uuid.uuid4()
    keyed = queue.options(id=own, unique_key="k")
    assert keyed.enqueue(anything) == keyed.enqueue(anything) == str(own)
    other = queue.options(id=uuid.uuid4(), unique_key="k").enqueue(anything)
    assert other == str(own)
    assert queue.count() == 1
    queue.complete(claimed(queue))
    assert keyed.enqueue(anything) == str(own)
    assert queue.options(unique_key="k").enqueue(anything) != str(own)  # no key was left behind


def test_one_id_enqueued_by_eight_threads_at_once_is_one_job(plain: JobQueue) -> None:
    own = uuid.uuid4()
    assert set(at_once(8, lambda n: plain.options(id=own).enqueue(anything, n=n))) == {str(own)}
    assert plain.count() == 1


def test_an_id_enqueued_under_many_keys_at_once_leaves_no_key_without_a_job(
    plain: JobQueue, backstage: Backstage
) -> None:
    own = uuid.uuid4()

    def one(number: int) -> str:
        try:
            return plain.options(id=own, unique_key=f"k{number}").enqueue(anything)
        except ValueError as error:
            assert "unique_key" in str(error)  # noqa: PT017 - which of them loses is chance
            return str(own)

    assert set(at_once(8, one)) == {str(own)}
    assert plain.count() == 1
    assert list(backstage.keys().values()) == [str(own)]


def test_an_id_can_be_repeated_inside_the_callers_transaction(plain: JobQueue, dsn: str) -> None:
    own = uuid.uuid4()
    with psycopg.connect(dsn) as connection:
        inside = plain.options(id=own, connection=connection)
        assert inside.enqueue(anything, n=1) == inside.enqueue(anything, n=2) == str(own)
        assert plain.get_job(str(own)) is None
    assert plain.list_jobs()[0].data == {"n": 1}


def test_a_key_in_a_transaction_that_is_rolled_back_stays_free(plain: JobQueue, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        lost = plain.options(unique_key="k", connection=connection).enqueue(anything)
        connection.rollback()
    assert plain.options(unique_key="k").enqueue(anything) != lost


def test_an_enqueue_waits_for_the_transaction_that_adds_its_key(plain: JobQueue, dsn: str, database: Database) -> None:
    with psycopg.connect(dsn) as connection, ThreadPoolExecutor(1) as pool:
        one = plain.options(unique_key="k", connection=connection).enqueue(anything)
        second = pool.submit(plain.options(unique_key="k").enqueue, anything)
        while not database.rows(
            "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        ):
            assert not second.done()
        connection.commit()
        assert second.result() == one


@pytest.mark.parametrize("key", ["k" * 500, "schlüssel \U0001f511", "a'b\"c\\d%s", " "])
def test_any_text_can_be_a_key(plain: JobQueue, key: str) -> None:
    keyed = plain.options(unique_key=key)
    one: Any = keyed.enqueue(anything)
    assert keyed.enqueue(anything) == one
