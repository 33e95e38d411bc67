"""How many jobs run at once, and in which order."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field

import pytest

from dbjobq import JobQueue, job
from dbjobq.runtime import pace
from tests.support.waiting import ended, heard, until
from tests.worker.conftest import LASTING, Start

pytestmark = pytest.mark.every_storage


@dataclass
class Crowd:
    """Counts who is there at the same time."""

    there: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> None:
        with self.lock:
            self.there += 1
            self.most = max(self.most, self.there)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.there -= 1


@pytest.mark.parametrize("kinds", [("def",), ("async",), ("def", "async")])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_as_many_jobs_run_at_once_as_the_concurrency_says_and_never_more(
    start: Start, queue: JobQueue, kinds: tuple[str, ...], concurrency: int
) -> None:
    crowd = Crowd()

    @job
    def sync() -> None:
        with crowd:
            time.sleep(0.05)

    @job
    async def coroutine() -> None:
        with crowd:
            await asyncio.sleep(0.05)

    ids = [queue.enqueue(sync if kind == "def" else coroutine) for _ in range(12) for kind in kinds]
    start(concurrency=concurrency)
    ended(queue, ids, timeout=60)
    assert crowd.most == concurrency


@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_batch_reaches_all_slots_though_few_are_woken_at_first(start: Start, queue: JobQueue, kind: str) -> None:
    go_on = threading.Event()
    began = threading.Semaphore(0)

    @job
    def hold(n: int) -> None:
        began.release()
        go_on.wait(LASTING)

    @job
    async def ahold(n: int) -> None:
        began.release()
        await heard(go_on)

    start(concurrency=50)
    ids = queue.enqueue_many(hold if kind == "def" else ahold, [{"n": n} for n in range(50)])
    for _ in ids:
        assert began.acquire(timeout=60)
    go_on.set()
    ended(queue, ids)


def test_many_short_jobs_do_not_exceed_the_concurrency_either(start: Start, queue: JobQueue) -> None:
    crowd = Crowd()

    @job
    def short(n: int) -> None:
        with crowd:
            if n % 50 == 0:
                time.sleep(0.02)

    start(concurrency=3)
    ended(queue, queue.enqueue_many(short, [{"n": n} for n in range(600)]), timeout=60)
    assert 1 < crowd.most <= 3


def test_a_def_job_does_not_hold_up_async_jobs(start: Start, queue: JobQueue) -> None:
    began, go_on = threading.Event(), threading.Event()

    @job
    def hold() -> None:
        began.set()
        go_on.wait(LASTING)

    @job
    async def quick() -> None: ...

    start(concurrency=2)
    held = queue.enqueue(hold)
    assert began.wait(60)
    ended(queue, [queue.enqueue(quick) for _ in range(20)])
    go_on.set()
    ended(queue, [held])


def test_a_slot_that_frees_itself_takes_the_next_job_while_others_are_busy(start: Start, queue: JobQueue) -> None:
    go_on = threading.Event()
    began = threading.Semaphore(0)

    @job
    async def hold() -> None:
        began.release()
        await heard(go_on)

    @job
    def quick() -> None: ...

    start(concurrency=3, poll_interval=200.0, max_poll_interval=200.0)
    held = [queue.enqueue(hold) for _ in range(2)]
    for _ in held:
        assert began.acquire(timeout=60)
    ended(queue, [queue.enqueue(quick) for _ in range(10)])
    go_on.set()
    ended(queue, held)


@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_job_behind_a_long_one_goes_back_to_the_queue_for_another_worker(
    start: Start, queue: JobQueue, kind: str, returned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn_nothing(*_: object) -> None: ...

    monkeypatch.setattr(pace, "GUESS", 0.0001)  # so short that many are claimed ahead
    monkeypatch.setattr(pace.Pace, "took", learn_nothing)
    began, go_on = threading.Event(), threading.Event()
    by: dict[int, str] = {}

    @job
    def hop(n: int) -> None:
        by[n] = ""
        if n == 0:
            began.set()
            go_on.wait(LASTING)

    @job
    async def ahop(n: int) -> None:
        by[n] = ""
        if n == 0:
            began.set()
            await heard(go_on)

    function = hop if kind == "def" else ahop
    first = queue.enqueue_many(function, [{"n": n} for n in range(40)])
    start()
    assert began.wait(60)
    start(poll_interval=200.0, max_poll_interval=200.0)
    ended(queue, first[1:])
    assert len(returned) > 1
    assert set(returned) <= set(first[1:])
    assert all(job.attempts == 0 for job in queue.get_completed_jobs())
    go_on.set()
    ended(queue, first)


@pytest.mark.usefixtures("cheap_looks")  # where full claims are expensive, near ones may pass over them for a while
def test_jobs_that_were_handed_back_keep_their_order(start: Start, queue: JobQueue) -> None:
    began, go_on = threading.Event(), threading.Event()
    order: list[int] = []

    @job
    def hop(n: int) -> None:
        order.append(n)
        if n == 0:
            began.set()
            go_on.wait(LASTING)

    start()
    ended(queue, queue.enqueue_many(hop, [{"n": -1} for _ in range(300)]))
    order.clear()
    ids = queue.enqueue_many(hop, [{"n": n} for n in range(30)])
    assert began.wait(60)
    until(lambda: len(queue.get_running_jobs()) == 1)
    go_on.set()
    ended(queue, ids)
    assert order == list(range(30))
