"""Programs, event loops, storages and forks that come or go without a word: nothing hangs, nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from dbjobq import AsyncJobQueue, JobQueue, PostgresStorage
from tests.storage.database import Database
from tests.support.faultproxy import proxied
from tests.support.waiting import until

OURS = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'dbjobq'"


def none_is_left(database: Database) -> None:
    until(lambda: database.value(OURS) == 0, what="the end of the connections")


def python(code: str, *arguments: str) -> str:
    """What a program prints. It must end by itself."""
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


ONE_RUN_A_CALL = """
import asyncio, sys
from dbjobq import AsyncJobQueue, JobQueue, PostgresStorage
storage = PostgresStorage(sys.argv[1])
for n in range(8):
    asyncio.run(AsyncJobQueue(storage if n % 2 else PostgresStorage(sys.argv[1])).enqueue("f", n=n))
async def held():
    async with storage.connections.aconnection(), storage.connections.aconnection():
        tasks = [asyncio.create_task(AsyncJobQueue(storage).count()) for _ in range(3)]
        await asyncio.sleep(0)
for n in range(8):
    asyncio.run(held())
with storage.connections.connection() as connection:
    ours = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'dbjobq'"
    for _ in range(1000):
        (left,) = connection.execute(ours).fetchone()
        if left == 1:
            break
print(JobQueue(storage).count(), left)
"""


def test_a_loop_for_each_call_neither_hangs_nor_leaves_connections(dsn: str) -> None:
    assert python(ONE_RUN_A_CALL, dsn) == "8 1\n"


def test_a_loop_that_is_merely_closed_leaves_nothing_beyond_the_next(
    storage: PostgresStorage, database: Database
) -> None:
    for _ in range(5):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(AsyncJobQueue(storage).enqueue("f"))
        loop.close()
        until(lambda: database.value(OURS) <= 1, what="the end of the connections before")
    asyncio.run(AsyncJobQueue(storage).count())
    none_is_left(database)


def test_a_queue_can_be_used_on_its_loop_after_it_was_closed(storage: PostgresStorage, database: Database) -> None:
    async def main() -> None:
        queue = AsyncJobQueue(storage)
        for _ in range(3):
            await queue.enqueue("f")
            await queue.close()
            await queue.close()
            none_is_left(database)

    asyncio.run(main())


def _call(dsn: str) -> None:
    JobQueue(PostgresStorage(dsn)).enqueue("f")


async def _acall(dsn: str) -> None:
    await AsyncJobQueue(PostgresStorage(dsn)).enqueue("f")


def test_storages_that_nobody_closed_leave_nothing(dsn: str, database: Database) -> None:
    for _ in range(5):
        _call(dsn)
    gc.collect()
    none_is_left(database)

    async def main() -> None:
        for _ in range(5):
            await _acall(dsn)
        gc.collect()
        await asyncio.to_thread(none_is_left, database)

    asyncio.run(main())


AT_EXIT = """
import atexit, sys
from dbjobq import JobQueue, PostgresStorage
queue = JobQueue(PostgresStorage(sys.argv[1]))
atexit.register(lambda: print(queue.count()))
atexit.register(lambda: queue.enqueue("the last"))
if sys.argv[2] == "used before":
    queue.enqueue("the first")
atexit.register(lambda: queue.options(delay=60).enqueue("the last but one"))
"""


@pytest.mark.parametrize(("before", "jobs"), [("used before", 3), ("unused", 2)])
def test_a_program_may_enqueue_while_it_exits(dsn: str, before: str, jobs: int) -> None:
    assert python(AT_EXIT, dsn, before) == f"{jobs}\n"


FORKED_MEANWHILE = """
import os, sys, threading
from dbjobq import JobQueue, PostgresStorage
queue = JobQueue(PostgresStorage(sys.argv[1], timeout=20))
thread = threading.Thread(target=queue.enqueue, args=("parent",))
thread.start()
sys.stdin.readline()  # it is connecting
if (child := os.fork()) == 0:
    print("forked", flush=True)
    queue.enqueue("child")
    queue.enqueue("child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
thread.join()
print(queue.count())
"""


def test_a_child_that_is_forked_while_a_thread_connects_can_enqueue(dsn: str) -> None:
    proxy, address = proxied(dsn)
    with proxy:
        proxy.blackhole()
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED_MEANWHILE, address]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            until(lambda: proxy.accepted, 60, "the thread's connection")
            program.stdin.write("\n")
            program.stdin.flush()
            assert program.stdout.readline() == "forked\n"
            proxy.heal()
            assert program.stdout.read() == "3\n"
            assert program.wait(60) == 0


def _in_a_child(call: Callable[[], Any]) -> int:
    child = os.fork()
    if child == 0:
        try:
            call()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_leaves_its_parents_connections_alone(storage: PostgresStorage) -> None:
    queue = JobQueue(storage)
    queue.enqueue("f")

    async def main() -> list[str]:
        mine = AsyncJobQueue(storage)
        await mine.enqueue("f")

        def call() -> None:
            queue.enqueue("f")
            queue.close()
            gc.collect()

        assert _in_a_child(call) == 0
        return [await mine.enqueue("f"), queue.enqueue("f")]

    with storage.connections.connection() as before:
        pass
    asyncio.run(main())
    with storage.connections.connection() as after:
        assert after is before
    assert queue.count() == 5


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forked_children_make_ids_of_their_own(storage: PostgresStorage) -> None:
    queue = JobQueue(storage)
    queue.enqueue("f")
    children: list[int] = []
    for n in range(4):
        if (child := os.fork()) == 0:
            try:
                for _ in range(50):
                    queue.enqueue("f", n=n)
                    queue.options(delay=60).enqueue("f", n=n)
                    queue.enqueue_many("f", [{"n": n}] * 2)
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert queue.count() == 1 + 4 * 50 * 4
