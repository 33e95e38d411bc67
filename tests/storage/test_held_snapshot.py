"""What a snapshot that is held open does to the statements workers send all the time (docs/decisions/0003).

Nothing that is deleted meanwhile can be vacuumed: each job leaves an entry at the front of every index it went through.
Pages are counted, not time: on a large table they are the same in every run.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbjobq import JobQueue, PostgresStorage, Worker, job
from dbjobq.storage.postgres.statements import Statements
from dbjobq.storage.postgres.worker import claim_start
from tests.storage.database import Database
from tests.storage.test_plans import CLAIM, FINISH, explain
from tests.storage.workers import claim, ended, exchange, run, worker
from tests.support.waiting import until

if TYPE_CHECKING:
    from dbjobq.storage.values import Claim, Outcome
    from dbjobq.storage.worker_port import Session

pytestmark = pytest.mark.timeout(600)
JOBS = 3_000
"""So many that the claims count little which go by before full ones are known to be expensive."""
MINUTES = [60_000, pytest.param(600_000, marks=pytest.mark.slow)]
"""Jobs: one minute at 1,000 a second, and ten."""
CHUNK = 5000
OWN = {"worker": 1, "name": "w1"}
ENQUEUE = """
with body as (
    insert into dbjobq.job (queue, priority, max_retries, id, type, data)
    select 1, 5, 3, gen_random_uuid(), 'f', '{}' from generate_series(1, %s) returning id, position
)
insert into dbjobq.scheduled (run_at, enqueued, queue, priority, job_id)
select clock_timestamp(), position, 1, 5, id from body
"""


@contextmanager
def snapshot(dsn: str) -> Generator[None]:
    """Hold one open."""
    with psycopg.connect(dsn) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("select count(*) from dbjobq.ready")
        yield


async def push(storage: PostgresStorage, database: Database, jobs: int) -> None:
    """Let so many jobs, all of them delayed, be enqueued, promoted, claimed and completed."""
    promote = Statements("dbjobq")["promote"]
    async with worker(storage) as session:
        outcomes: list[Outcome] = []
        for _ in range(jobs // CHUNK):
            since = database.value("select date_part('epoch', clock_timestamp())")
            database.connection.execute(ENQUEUE.encode(), (CHUNK,))
            for _part in range(CHUNK // 2000 + 1):
                database.connection.execute(promote, {"since": since})
            left = CHUNK
            while left:
                claims = (await exchange(session, outcomes, 500)).claims
                outcomes = [ended(claim) for claim in claims]
                left -= len(claims)
        await exchange(session, outcomes)


def near(database: Database) -> dict[str, tuple[str, dict[str, Any], bool]]:
    """The statements of a worker whose last look is just over: name, parameters, whether on its pinned connection."""
    since = database.value("select date_part('epoch', clock_timestamp())")
    place = {"after": "{1}", "priorities": "{5}", "positions": f"{{{int(since * 1e6)}}}"}
    return {
        "claim_after": ("claim_after", CLAIM | {"limit": 10} | OWN | place, True),
        "next_due": ("next_due", {"since": since}, True),
        "promote": ("promote", {"since": since}, True),
        "idle": ("idle", {"queues": None, "few": 32, "since": since} | OWN, True),
        "heartbeat": ("heartbeat", {"ttl": 30.0} | OWN, False),
    }


def whole() -> dict[str, tuple[str, dict[str, Any], bool]]:
    """The same, without knowing anything."""
    return {
        "claim": ("claim", CLAIM | {"limit": 10} | OWN, True),
        "next_due": ("next_due", {"since": None}, True),
        "promote": ("promote", {"since": None}, True),
        "idle": ("idle", {"queues": None, "few": 32, "since": None} | OWN, True),
    }


@pytest.mark.parametrize("jobs", MINUTES)
def test_near_claims_touch_as_many_pages_as_on_an_empty_system_and_full_ones_do_not(
    storage: PostgresStorage, queue: JobQueue, database: Database, dsn: str, jobs: int
) -> None:
    def pages(statements: dict[str, tuple[str, dict[str, Any], bool]]) -> dict[str, int]:
        queue.enqueue_many("f", ({} for _ in range(10)))
        database.rows("analyze")
        found = {
            case: explain(dsn, name, params, pinned=pinned).shared
            for case, (name, params, pinned) in statements.items()
        }
        database.rows("delete from dbjobq.ready")
        return found

    asyncio.run(push(storage, database, CHUNK))  # the indexes have their height
    database.rows("vacuum")
    near_before, whole_before = pages(near(database)), pages(whole())
    with snapshot(dsn):
        asyncio.run(push(storage, database, jobs))
        near_after, whole_after = pages(near(database)), pages(whole())
    # With 600,000: 103 → 135, 1 → 3, 3 → 5, 7 → 9 and 3 → 8; whole ones 103 → 8,697 and for the others some 7,910.
    # A level more in each of three indexes, for each job claimed at most.
    assert {case: n for case, n in near_after.items() if n > near_before[case] * 1.4 + 10} == {}
    assert {case: n for case, n in whole_after.items() if n < whole_before[case] + jobs / 200} == {}


BY_CLAIM = ["finish_completed", "finish", "accepted", "held", "progress", "unlocked"]
BY_ID = ["cancel", "retry", "get_job", "get_progress"]


@pytest.mark.parametrize("pinned", [True, False])
def test_what_looks_up_jobs_walks_over_none_that_are_gone_when_statistics_say_that_there_are_none(
    storage: PostgresStorage, database: Database, dsn: str, pinned: bool
) -> None:
    """Of an index of nothing a plan may read all, for nothing, it believes."""
    with snapshot(dsn):
        asyncio.run(push(storage, database, 4 * CHUNK))
        database.rows("analyze")
        known = {"id": database.value("select job_id::text from dbjobq.done limit 1"), "delay": 0.0}
        known |= {"mark": -1, "ended": None}
        params = FINISH | {"progress": ["{}"] * 100}
        pages = {
            name: explain(dsn, name, params if name in BY_CLAIM else known, pinned=pinned).shared
            for name in BY_CLAIM + BY_ID
        }
    assert {name: n for name, n in pages.items() if n > 300} == {}  # 200, two for each of 100 claims; it was 20,000


@pytest.fixture
def expensive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every full claim that is measured is taken for expensive, and a third of a second must pass before the next."""
    never_cheap = {"EXPENSIVE_CLAIM": 0.0, "COST_PER_JOB": 0.0, "MEASURE_EVERY": 1}
    for setting, value in {**never_cheap, "PAUSE_FACTOR": 1e9, "LONGEST_PAUSE": 0.3}.items():
        monkeypatch.setattr(claim_start, setting, value)


async def resting(session: Session, queue: JobQueue) -> None:
    """Let the session find out that full claims are expensive."""
    queue.enqueue("f")
    for _ in range(4):
        await claim(session)
        while (await session.idle()).look_in is not None:
            await claim(session, promote=False)
    assert [c.priority for c in await until_claimed(session, lambda: queue.enqueue("f"))] == [5]


async def until_claimed(session: Session, enqueue: Callable[[], object]) -> list[Claim]:
    """Look as a worker does until there is something, but do not sleep for longer than the session says it may."""
    enqueue()
    while not (claims := await claim(session, promote=False)):
        idle = await session.idle()
        if idle.next_due is not None and idle.next_due <= 0:
            return await claim(session, promote=True)
        assert idle.look_in is not None, "it would sleep now"
        assert idle.look_in <= 0.3
        await asyncio.sleep(idle.look_in)
    return claims


@pytest.mark.parametrize(
    "kind", ["usual", "unknown priority", "unknown queue", "late", "handed back", "due", "due late"]
)
@pytest.mark.usefixtures("expensive")
def test_near_claims_leave_nothing_behind(
    storage: PostgresStorage, queue: JobQueue, database: Database, dsn: str, kind: str
) -> None:
    async def main() -> None:
        async with worker(storage) as session:
            await resting(session, queue)
            with psycopg.connect(dsn) as connection:
                inside = queue.options(connection=connection)
                ids: list[str] = []

                def enqueue() -> None:
                    if kind == "usual":
                        ids.append(queue.enqueue("f"))
                    elif kind == "unknown priority":
                        ids.append(queue.enqueue("f", priority=9))
                    elif kind == "unknown queue":
                        ids.append(queue.options(queue="new").enqueue("f"))
                    elif kind == "due":
                        ids.append(queue.options(delay=0.05).enqueue("f"))
                        time.sleep(0.1)
                    elif kind == "handed back":
                        database.rows("update dbjobq.ready set position = 1, enqueued = 1")
                    else:
                        connection.commit()

                if kind in {"late", "due late"}:
                    ids.append((inside.options(delay=0.01) if kind == "due late" else inside).enqueue("f"))
                    await asyncio.sleep(1.2)  # longer than near claims allow for
                elif kind == "handed back":
                    ids.append(queue.enqueue("f"))
                assert [c.id for c in await until_claimed(session, enqueue)] == ids

    run(main())


@pytest.mark.slow
def test_a_worker_that_keeps_up_finds_its_jobs_by_near_claims(
    storage: PostgresStorage, database: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_start, "EXPENSIVE_CLAIM", 0.0)  # however fast this machine is,
    monkeypatch.setattr(claim_start, "PAUSE_FACTOR", 10_000)  # or slow: a pause is the longest there is
    done = threading.Event()

    @job
    async def say() -> None:
        done.set()

    def touched() -> int:
        """The pages so far; a connection's are counted when it has ended."""
        others = (
            "select count(*) from pg_stat_activity where application_name = 'dbjobq' and datname = current_database()"
        )
        until(lambda: database.value(others) == 0)
        return int(
            database.value("select blks_hit + blks_read from pg_stat_database where datname = current_database()")
        )

    with snapshot(dsn):
        asyncio.run(push(storage, database, 200_000))
        database.rows("analyze")  # as the server does by itself
        before = touched()
        with PostgresStorage(dsn) as own, Worker(JobQueue(own)):
            for _ in range(JOBS):
                done.clear()
                JobQueue(own).enqueue(say)
                assert done.wait(60)
        assert (touched() - before) / JOBS < 1000  # 135; each full claim touches 2,700 for what is ready alone
