"""A job is one claim's at a time: results of any other are refused, and a worker that is gone costs one attempt."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from dbjobq import BaseStorage, Job, JobQueue
from dbjobq.storage.values import Exchange
from tests.storage.workers import BEAT, claim, ended, exchange, rescue, run, worker

if TYPE_CHECKING:
    from dbjobq.models import Event
    from dbjobq.storage.values import Claim
    from tests.storage.backstage import Backstage
    from tests.storage.database import Database

pytestmark = pytest.mark.every_storage


def stored(queue: JobQueue, job_id: str) -> Job:
    job = queue.get_job(job_id)
    assert job is not None
    return job


def nothing(count: int) -> list[dict[str, int]]:
    """The arguments of so many jobs that take none."""
    return [{} for _ in range(count)]


# Many at once.


def test_four_threads_that_dequeue_500_jobs_never_get_one_twice(queue: JobQueue) -> None:
    ids = queue.enqueue_many("f", [{"n": n} for n in range(500)])
    barrier = Barrier(4)

    def work(_: int) -> list[str]:
        barrier.wait()
        mine: list[str] = []
        while (job := queue.dequeue()) is not None:
            mine.append(job.id)
            if len(mine) % 3:
                queue.complete(job)
        return mine

    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(work, range(4)))
    assert sorted(i for mine in got for i in mine) == ids
    assert queue.count("pending") == 0
    assert queue.count("completed") + queue.count("running") == 500


def test_four_workers_that_claim_batches_at_once_never_get_a_job_twice(storage: BaseStorage, queue: JobQueue) -> None:
    ids = list(queue.enqueue_many("f", [{"n": n} for n in range(500)], priority=3))
    ids += queue.options(queue="other").enqueue_many("f", [{"n": n} for n in range(100)])
    barrier = Barrier(4)
    got: list[Claim] = []

    async def works(number: int) -> None:
        async with worker(storage, f"w{number}") as session:
            barrier.wait()
            done: list[Claim] = []
            while step := await exchange(session, [ended(c) for c in done], 7 + number):
                assert not step.refused
                done = step.claims
                got.extend(done)
                if not done:
                    break

    def work(number: int) -> None:
        run(works(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert sorted(c.id for c in got) == sorted(ids)
    assert queue.stats()["completed"] == 600


def test_a_claim_takes_the_highest_priority_first_and_no_more_than_asked(storage: BaseStorage, queue: JobQueue) -> None:
    for n in range(30):
        queue.enqueue("f", n=n, priority=n % 3)

    async def main() -> None:
        async with worker(storage) as session:
            first = await claim(session, 13)
            rest = await claim(session, 100)
        assert len(first) == 13
        order = sorted(range(30), key=lambda n: (-(n % 3), n))
        assert [c.job(None).data["n"] for c in first + rest] == order

    run(main())


def test_a_worker_serves_its_queues_in_their_order_and_no_others(storage: BaseStorage, queue: JobQueue) -> None:
    for name in ("low", "high", "other"):
        queue.options(queue=name).enqueue_many("f", nothing(3))

    async def main() -> None:
        async with worker(storage, queues=["high", "low"]) as session:
            assert [c.queue for c in await claim(session, 4)] == ["high"] * 3 + ["low"]
            assert [c.queue for c in await claim(session, 4)] == ["low"] * 2

    run(main())


def test_a_worker_of_all_queues_learns_of_new_ones(storage: BaseStorage, queue: JobQueue, database: Database) -> None:
    async def main() -> None:
        async with worker(storage) as session:
            assert await claim(session) == []
            queue.options(queue="brand new").enqueue("f")
            look = (await session.idle()).look_in
            assert look is not None
            assert [c.queue for c in await claim(session)] == ["brand new"]

    run(main())


@pytest.mark.parametrize("late", [0, 20])
def test_full_batches_do_not_pass_over_what_comes_later(storage: BaseStorage, queue: JobQueue, late: int) -> None:
    """A claim after a full one starts where that ended; a job of higher priority must be found all the same."""
    queue.enqueue_many("f", [{"n": n} for n in range(40)])

    async def main() -> None:
        async with worker(storage) as session:
            seen = await claim(session, 10)
            queue.enqueue_many("f", [{"n": n} for n in range(100, 100 + late)], priority=9)
            while step := await claim(session, 10, promote=False):
                seen += step
            assert len({c.id for c in seen}) == len(seen) == 40 + late

    run(main())


def test_full_batches_of_jobs_that_became_due_together_keep_their_order(
    storage: BaseStorage, queue: JobQueue, backstage: Backstage
) -> None:
    when = datetime.now(UTC) + timedelta(hours=1)
    ids = list(queue.enqueue_many("f", nothing(60), execute_at=when))
    ids += queue.enqueue_many("f", nothing(20), execute_at=when + timedelta(microseconds=1))
    backstage.skip(3601)
    ids += queue.enqueue_many("f", nothing(20))

    async def main() -> None:
        async with worker(storage) as session:
            got = await claim(session, 15)
            while step := await claim(session, 15, promote=False):
                got += step
            assert [c.id for c in got] == ids

    run(main())


# Fences.

EVENTS: list[Event] = ["complete", "retry", "fail", "release"]


@pytest.mark.parametrize("event", EVENTS)
def test_a_stale_claim_cannot_end_a_job_that_is_held_by_another(
    storage: BaseStorage, queue: JobQueue, backstage: Backstage, event: Event
) -> None:
    one = queue.enqueue("f")

    async def main() -> None:
        async with worker(storage, "old") as old, worker(storage, "new") as new:
            (stale,) = await claim(old)
            backstage.kill("old")
            assert [r.id for r in rescue(storage)] == [one]
            (fresh,) = await claim(new)
            assert fresh.claim != stale.claim
            late = ended(stale, event)
            assert storage.finish([late]).run() == set()
            assert (await exchange(old, [late])).refused == ([] if event == "release" else [late])
            job = stored(queue, one)
            assert (job.status, job.attempts, job.worker_id) == ("running", 1, "new")
            assert storage.finish([ended(fresh)]).run() == {one}
            assert storage.finish([late]).run() == set()
            assert stored(queue, one).status == "completed"

    run(main())


@pytest.mark.parametrize("event", ["complete", "retry", "fail"])
@pytest.mark.parametrize("with_result", [False, True])
def test_a_late_result_is_reported_as_refused_to_a_worker_that_was_rescued(
    storage: BaseStorage, queue: JobQueue, backstage: Backstage, event: Event, with_result: bool
) -> None:
    queue.enqueue_many("f", nothing(2))

    async def main() -> None:
        async with worker(storage, "paused") as paused:
            claims = await claim(paused)
            backstage.kill("paused")
            assert len(rescue(storage)) == 2
            late = [ended(c, event, result="1" if with_result else None) for c in claims]
            pulse = paused.pulse()
            assert pulse.lost(claims) == dict.fromkeys(claims, False)
            pulse.close()
            answer = await exchange(paused, late)
            assert (answer.refused, answer.cancelled) == (late, set())

    run(main())


def test_a_result_that_comes_after_cancel_is_refused(storage: BaseStorage, queue: JobQueue) -> None:
    one = queue.enqueue("f")

    async def main() -> None:
        async with worker(storage) as session:
            (held,) = await claim(session)
            assert queue.cancel(one)
            pulse = session.pulse()
            assert pulse.lost([held]) == {held: True}
            pulse.close()
            late = [ended(held, result='"x"')]
            answer = await exchange(session, late)
            assert (answer.refused, answer.cancelled) == (late, {one})
            assert stored(queue, one).status == "cancelled"

    run(main())


def test_a_result_that_comes_after_another_of_the_same_claim_is_refused(storage: BaseStorage, queue: JobQueue) -> None:
    """Somebody wrote in the place of a blocked loop that the job failed; later that loop says that it completed."""
    one = queue.enqueue("f", max_retries=0)

    async def main() -> None:
        async with worker(storage) as session:
            (held,) = await claim(session)
            assert storage.finish([ended(held, "fail")]).run() == {one}
            late = [ended(held)]
            assert (await exchange(session, late)).refused == late
            assert (await exchange(session, [ended(held, "fail")])).refused == []

    run(main())
    assert stored(queue, one).status == "failed"


def test_a_result_that_comes_after_that_of_the_next_claim_is_refused(
    storage: BaseStorage, queue: JobQueue, backstage: Backstage
) -> None:
    """Both say the same; only one of them was written, and whoever sent the other must know."""
    queue.enqueue("f")

    async def main() -> None:
        async with worker(storage, "old") as old, worker(storage, "new") as new:
            (stale,) = await claim(old)
            backstage.kill("old")
            assert len(rescue(storage)) == 1
            (fresh,) = await claim(new)
            assert (await exchange(new, [ended(fresh)])).refused == []
            late = [ended(stale)]
            assert (await exchange(old, late)).refused == late

    run(main())


def test_outcomes_sent_again_are_not_refused_and_count_once(storage: BaseStorage, queue: JobQueue) -> None:
    ids = queue.enqueue_many("f", [{"n": n} for n in range(6)], max_retries=1)
    keyed = queue.options(unique_key="k").enqueue("f")

    async def main() -> None:
        async with worker(storage) as session:
            held = await claim(session, 7)
            outcomes = [
                ended(held[0]),
                ended(held[1], result='{"a": 1}'),
                ended(held[2], error="no result"),
                ended(held[3], "retry", delay=60.0),
                ended(held[4], "fail"),
                ended(held[5], "release"),
                ended(held[6]),
            ]
            for _ in range(3):
                assert (await exchange(session, outcomes)).refused == []

    run(main())
    found = [stored(queue, i) for i in [*ids, keyed]]
    assert [(job.status, job.attempts) for job in found] == [
        ("completed", 0), ("completed", 0), ("completed", 0),
        ("pending", 1), ("failed", 1), ("pending", 0), ("completed", 0),
    ]  # fmt: skip
    assert found[1].result == {"a": 1}
    assert queue.count() == 7


def test_one_batch_may_hold_what_counts_and_what_came_late(
    storage: BaseStorage, queue: JobQueue, backstage: Backstage
) -> None:
    queue.enqueue_many("f", [{"n": n} for n in range(4)])

    async def main() -> None:
        async with worker(storage) as session:
            held = await claim(session)
            queue.cancel(held[0].id)
            queue.cancel(held[1].id)
            outcomes = [ended(held[0]), ended(held[1], "fail"), ended(held[2]), ended(held[3], result="1")]
            step = await exchange(session, outcomes, 5)
            assert {o.claim.id for o in step.refused} == {held[0].id, held[1].id}

    run(main())
    assert queue.stats() | {"total": 0} == {
        "pending": 0, "running": 0, "completed": 2, "failed": 0, "cancelled": 2, "total": 0
    }  # fmt: skip


# Poison: what PostgreSQL refuses.


@pytest.mark.parametrize("result", ["{not json", "\x00", "[" * 100_000], ids=["json", "nul", "deep"])
def test_a_result_that_is_refused_completes_its_job_and_the_others(
    storage: BaseStorage, queue: JobQueue, database: Database, result: str
) -> None:
    ids = queue.enqueue_many("f", [{"n": n} for n in range(5)])

    async def main() -> None:
        async with worker(storage) as session:
            held = await claim(session, promote=False)
            outcomes = [ended(c, result=result if n == 2 else f"{n}" if n else None) for n, c in enumerate(held)]
            assert (await exchange(session, outcomes, 5, promote=True)).refused == []
            assert await claim(session, promote=True) == []  # the session is usable, what it had not sent before, too

    run(main())
    found = [stored(queue, i) for i in ids]
    assert [job.status for job in found] == ["completed"] * 5
    assert [job.result for job in found] == [None, 1, None, 3, 4]
    assert found[2].error is not None
    assert "result" in found[2].error
    assert [job.error for job in (*found[:2], *found[3:])] == [None] * 4


@pytest.mark.parametrize("event", ["fail", "retry"])
def test_an_error_that_is_refused_does_not_keep_the_others_from_ending(
    storage: BaseStorage, queue: JobQueue, event: Event
) -> None:
    ids = queue.enqueue_many("f", [{"n": n} for n in range(3)])

    async def main() -> None:
        async with worker(storage) as session:
            held = await claim(session)
            outcomes = [ended(held[0]), ended(held[1], event, error="\x00"), ended(held[2], result="2")]
            assert (await exchange(session, outcomes)).refused == []

    run(main())
    found = [stored(queue, i) for i in ids]
    assert [job.status for job in found] == ["completed", "failed" if event == "fail" else "pending", "completed"]
    assert (found[1].attempts, found[2].result) == (1, 2)
    assert found[1].error


# Rescue, heartbeat, release.


def test_rescue_charges_one_attempt_and_fails_what_has_none_left(
    storage: BaseStorage, queue: JobQueue, backstage: Backstage
) -> None:
    one = queue.options(unique_key="k").enqueue("f", n=1)
    last = queue.options(max_retries=0, unique_key="last").enqueue("g", n=2)

    async def main() -> None:
        async with worker(storage, "gone") as gone, worker(storage, "alive") as alive:
            assert len(await claim(gone)) == 2
            assert rescue(storage) == []
            kept = queue.enqueue("f")
            assert [c.id for c in await claim(alive)] == [kept]
            backstage.kill("gone")
            rescued = sorted(rescue(storage))
            assert [(r.id, r.type, r.queue, r.attempts, r.dead) for r in rescued] == [
                (one, "f", "default", 0, False),
                (last, "g", "default", 0, True),
            ]
            assert rescue(storage) == []
            assert stored(queue, kept).status == "running"

    run(main())
    assert (stored(queue, one).status, stored(queue, one).attempts) == ("pending", 1)
    dead = stored(queue, last)
    assert (dead.status, dead.attempts) == ("failed", 1)
    for job in (stored(queue, one), dead):
        assert job.error is not None
        assert "WorkerLost" in job.error
        assert "gone" in job.error
    assert queue.options(unique_key="k").enqueue("f") == one
    assert queue.options(unique_key="last").enqueue("f") != last


def test_a_job_that_kills_every_worker_starts_at_most_max_retries_plus_1_times(
    storage: BaseStorage, queue: JobQueue, backstage: Backstage
) -> None:
    one = queue.enqueue("f", max_retries=2)

    async def main() -> None:
        for start in range(3):
            async with worker(storage, f"w{start}") as session:
                assert [c.attempts for c in await claim(session)] == [start]
                backstage.kill(f"w{start}")
                rescue(storage)
        async with worker(storage, "last") as session:
            assert await claim(session) == []

    run(main())
    assert (stored(queue, one).status, stored(queue, one).attempts) == ("failed", 3)


def test_a_rescued_job_is_marked_until_it_ends(storage: BaseStorage, queue: JobQueue, backstage: Backstage) -> None:
    """Its worker died with it, perhaps of it: nobody claims it ahead beside others, however often it goes back."""
    queue.enqueue("f")

    async def main() -> None:
        async with worker(storage, "gone") as gone, worker(storage, "next") as other:
            (held,) = await claim(gone)
            assert not held.suspect
            backstage.kill("gone")
            assert len(rescue(storage)) == 1
            for _ in range(2):
                (held,) = await claim(other)
                assert held.suspect
                await exchange(other, [ended(held, "release")])

    run(main())


def test_the_largest_max_retries_can_be_rescued(storage: BaseStorage, queue: JobQueue, backstage: Backstage) -> None:
    one = queue.enqueue("f", max_retries=2**31 - 1)
    other = queue.enqueue("f")

    async def main() -> None:
        async with worker(storage) as session:
            assert len(await claim(session)) == 2
            backstage.kill("w1")
            assert {r.id for r in rescue(storage)} == {one, other}

    run(main())
    assert stored(queue, one).attempts == stored(queue, other).attempts == 1


def test_rescued_jobs_keep_their_place(storage: BaseStorage, queue: JobQueue, backstage: Backstage) -> None:
    ids = queue.enqueue_many("f", [{"n": n} for n in range(5)])

    async def main() -> None:
        async with worker(storage) as session:
            await claim(session, 2)
            backstage.kill("w1")
            rescue(storage)
        async with worker(storage, "w2") as session:
            assert [c.id for c in await claim(session)] == ids

    run(main())


def test_two_that_rescue_at_once_charge_one_attempt(
    storage: BaseStorage, queue: JobQueue, backstage: Backstage
) -> None:
    ids = queue.enqueue_many("f", nothing(50))

    async def main() -> None:
        async with worker(storage) as session:
            await claim(session, 50)

    run(main())
    backstage.kill("w1")
    barrier = Barrier(4)

    def one(_: int) -> list[str]:
        barrier.wait()
        return [r.id for r in rescue(storage)]

    with ThreadPoolExecutor(4) as pool:
        got = [i for some in pool.map(one, range(4)) for i in some]
    assert sorted(got) == ids
    assert {job.attempts for job in queue.list_jobs()} == {1}


def test_a_heartbeat_prolongs_a_life_and_never_revives_one(
    storage: BaseStorage, queue: JobQueue, backstage: Backstage
) -> None:
    queue.enqueue("f")

    async def main() -> None:
        async with worker(storage) as session:
            pulse = session.pulse()
            await claim(session)
            backstage.skip(BEAT - 5)
            assert pulse.beat(BEAT) is True
            backstage.skip(BEAT - 5)
            assert rescue(storage) == []
            assert pulse.beat(BEAT) is True
            backstage.kill("w1")
            assert pulse.beat(BEAT) is False
            assert len(rescue(storage)) == 1
            assert pulse.beat(BEAT) is False
            pulse.close()

    run(main())


def test_a_worker_that_was_forgotten_is_another_when_it_opens_again(
    storage: BaseStorage, queue: JobQueue, backstage: Backstage
) -> None:
    queue.enqueue_many("f", nothing(2))

    async def main() -> None:
        session = storage.session("w1", None, BEAT)
        await session.open()
        (stale,) = await claim(session, 1)
        backstage.kill("w1")
        session.forget()
        await session.close()
        await session.open()
        (fresh,) = await claim(session, 1)
        assert [r.id for r in rescue(storage)] == [stale.id]
        assert (await exchange(session, [ended(fresh)])).refused == []
        await session.close()

    run(main())


def test_what_a_worker_gives_back_costs_no_attempt_and_keeps_its_place(
    storage: BaseStorage, queue: JobQueue, backstage: Backstage
) -> None:
    ids = queue.enqueue_many("f", [{"n": n} for n in range(4)], max_retries=0)

    async def main() -> None:
        async with worker(storage, "leaving") as leaving, worker(storage, "other") as other:
            held = await claim(leaving, 2)
            kept = await claim(other, 1)
            assert sorted(await leaving.release()) == sorted(c.id for c in held)
            assert await leaving.release() == []
            assert rescue(storage) == []
            again = await claim(other, 10)
            assert [(c.id, c.attempts) for c in again] == [(ids[0], 0), (ids[1], 0), (ids[3], 0)]
            assert {c.claim for c in again}.isdisjoint({c.claim for c in held})
            late = [ended(c) for c in held]
            assert (await exchange(leaving, late)).refused == late
            assert (await exchange(other, [ended(c) for c in again + kept])).refused == []

    run(main())
    assert queue.stats()["completed"] == 4


def test_jobs_that_are_handed_back_after_a_full_batch_go_before_those_that_were_behind_them(
    storage: BaseStorage, queue: JobQueue
) -> None:
    ids = queue.enqueue_many("f", nothing(6))

    async def main() -> None:
        async with worker(storage) as session:
            first, *others = await claim(session, 5, promote=False)
            assert first.id == ids[0]
            back = [ended(held, "release") for held in others]
            step = await exchange(session, [*back, ended(first)], 2)
            assert [held.id for held in step.claims] == ids[1:3]

    run(main())


def test_unstarted_jobs_that_are_handed_back_can_be_claimed_at_once(storage: BaseStorage, queue: JobQueue) -> None:
    queue.enqueue_many("f", nothing(3))

    async def main() -> None:
        async with worker(storage, "one") as one, worker(storage, "two") as two:
            held = await claim(one)
            await exchange(one, [ended(c, "release") for c in held[1:]])
            assert sorted(c.id for c in await claim(two)) == [c.id for c in held[1:]]

    run(main())


def test_progress_is_seen_while_the_job_runs_and_only_by_its_claim(storage: BaseStorage, queue: JobQueue) -> None:
    one = queue.enqueue("f")

    async def main() -> None:
        async with worker(storage) as session:
            (held,) = await claim(session)
            stale = held._replace(claim="0")
            said = {held: '{"done": 5}', stale: '{"done": 0}'}
            await session.step(Exchange(progress=said))
            assert queue.get_progress(one) == {"done": 5}
            await session.step(Exchange(progress={stale: '{"done": 0}'}))
            assert queue.get_progress(one) == {"done": 5}

    run(main())
