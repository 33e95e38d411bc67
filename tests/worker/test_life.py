"""How long a worker lives without a heartbeat, and that it never takes itself to live longer than the server does."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import pytest

from dbjobq import job
from dbjobq.runtime.trust import TrustWindow
from dbjobq.storage.postgres.worker.pulse import PostgresPulse
from tests.support.waiting import until

if TYPE_CHECKING:
    from dbjobq import JobQueue
    from tests.storage.database import Database
    from tests.worker.conftest import Blocker, Start

LIFE: Final = (
    "select expires_at, extract(epoch from expires_at - clock_timestamp())::float8"
    " from dbjobq.worker order by id desc limit 1"
)
"""When the last worker's life ends, and in how many seconds that is, by the server."""


def test_a_life_leaves_a_third_of_the_lease_for_its_end_to_be_noticed(
    start: Start, queue: JobQueue, database: Database, blocker: Blocker
) -> None:
    """Whoever dies right after a heartbeat is noticed within the lease: its life and a look must both fit into it."""

    @job
    def works() -> None:
        blocker.block()

    start(lease=3.0)
    queue.enqueue(works)
    assert blocker.began.wait(60)
    ends = set[object]()
    while len(ends) < 4:  # by the claim, and by heartbeats
        ((end, left),) = database.rows(LIFE)
        ends.add(end)
        assert left <= 0.7 * 3.0  # a late look sees less of it, never more


def test_a_worker_takes_itself_to_live_no_longer_than_the_server_does_though_answers_are_slow(
    start: Start, queue: JobQueue, database: Database, blocker: Blocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server counts from when a heartbeat came, before its answer went out: so a worker counts from the sending."""
    answered, slow, real = threading.Event(), threading.Event(), PostgresPulse.beat

    def beat(self: PostgresPulse, seconds: float) -> bool:
        alive = real(self, seconds)
        slow.wait(1.0)
        answered.set()
        return alive

    @job
    def works() -> None:
        blocker.block()

    monkeypatch.setattr(PostgresPulse, "beat", beat)
    worker = start(lease=9.0)
    queue.enqueue(works)
    assert blocker.began.wait(60)
    (supervisor,) = worker._supervisors.values()
    for _ in range(3):
        answered.clear()
        assert answered.wait(60)
        until(lambda: _believed_while_nothing_changes(supervisor._lease, database))


def _believed_while_nothing_changes(lease: TrustWindow, database: Database) -> bool:
    """Compare both ends of a life; False if a heartbeat came meanwhile."""
    (before,) = database.rows(LIFE)
    ours = lease.left()
    (after,) = database.rows(LIFE)
    if before[0] != after[0]:
        return False
    assert ours <= before[1]
    return True


def test_dead_workers_are_looked_for_often_enough_to_be_noticed_within_their_lease(
    start: Start, queue: JobQueue, blocker: Blocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A life is two thirds of a lease, so there must be a look in each third; there is a heartbeat in each seventh."""
    beats, looks = list[float](), list[float]()
    beat, abandoned = PostgresPulse.beat, PostgresPulse.abandoned

    def counted(self: PostgresPulse, seconds: float) -> bool:
        beats.append(seconds)
        return beat(self, seconds)

    def looked(self: PostgresPulse) -> bool:
        looks.append(0.0)
        return abandoned(self)

    @job
    def works() -> None:
        blocker.block()

    monkeypatch.setattr(PostgresPulse, "beat", counted)
    monkeypatch.setattr(PostgresPulse, "abandoned", looked)
    start(lease=2.0)
    queue.enqueue(works)
    until(lambda: len(beats) >= 14, 60)
    assert len(looks) >= 14 // 3
