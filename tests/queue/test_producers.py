"""Producers whose database goes away: each call ends within its timeout, and is acknowledged or raises.

What was acknowledged is there once; what raised is there once or not at all, and never in part; what is repeated with
an id or a unique key until it is acknowledged is there once.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from typing import Any, ClassVar, Final

import psycopg
import pytest

from dbjobq import AsyncJobQueue, JobQueue, PostgresStorage, StorageUnavailable, job
from dbjobq.schema import migrate
from tests.chaos.cluster import Cluster
from tests.storage.database import Database
from tests.support.faultproxy import FaultProxy, proxied
from tests.support.waiting import until

TIMEOUT: Final = 0.5
SLACK: Final = 30.0
"""Seconds that a busy machine may add."""
ROWS: Final = 600
"""Of a bulk: more than one piece."""


@job(name="producers.work")
def work(tag: str, row: int = 0) -> None: ...


class Producer:
    """Makes every kind of call; each has a tag, which the jobs it writes carry."""

    KINDS: ClassVar[tuple[str, ...]] = ("one", "delayed", "id", "key", "many", "connection")

    def __init__(self, dsn: str, *, timeout: float = TIMEOUT, max_size: int = 2) -> None:
        self.dsn = dsn
        self.storage = PostgresStorage(dsn, timeout=timeout, max_size=max_size)
        self.queue = JobQueue(self.storage)

    def warm_up(self) -> None:
        """Connect and prepare, for which a busy machine may need longer than a call has."""
        connections = self.storage.connections
        connections.timeout, timeout = SLACK, connections.timeout
        self.call("one", "warm")
        connections.timeout = timeout

    def call(self, kind: str, tag: str) -> Sequence[str]:
        """Make a call; return the ids it was given."""
        match kind:
            case "many":
                return self.queue.enqueue_many(work, rows(tag))
            case "connection":
                with psycopg.connect(self.dsn) as connection:
                    return [self.queue.options(connection=connection).enqueue(work, tag)]
            case _:
                return [self.queue.options(**options(kind, tag)).enqueue(work, tag)]

    def enqueue_on(self, connection: object, queue: str) -> None:
        self.queue.options(connection=connection, queue=queue).enqueue(work, "on")

    @contextmanager
    def transaction(self) -> Generator[object]:
        with self.storage.transaction() as connection:
            yield connection

    def close(self) -> None:
        self.storage.close()


class EagerProducer(Producer):
    """Prepares what it sends at the first use: so that calls take the way that they take for long in a real one."""

    def __init__(self, dsn: str, *, timeout: float = TIMEOUT, max_size: int = 2) -> None:
        super().__init__(dsn, timeout=timeout, max_size=max_size)
        self.storage.connections.way.prepare_after = 0


class AsyncProducer(Producer):
    """The same on an event loop; `group`: many at once, which share a connection."""

    KINDS = (*Producer.KINDS, "group")

    def __init__(self, dsn: str, *, timeout: float = TIMEOUT, max_size: int = 2) -> None:
        super().__init__(dsn, timeout=timeout, max_size=max_size)
        self.awaited = AsyncJobQueue(self.storage)
        self.runner = asyncio.Runner()

    def call(self, kind: str, tag: str) -> Sequence[str]:
        return self.runner.run(self._call(kind, tag))

    async def _call(self, kind: str, tag: str) -> Sequence[str]:
        match kind:
            case "many":
                return await self.awaited.enqueue_many(work, rows(tag))
            case "connection":
                async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
                    return [await self.awaited.options(connection=connection).enqueue(work, tag)]
            case "group":
                calls = (self.awaited.enqueue(work, tag=tag, row=n) for n in range(20))
                answers = await asyncio.gather(*calls, return_exceptions=True)
                for answer in answers:
                    if isinstance(answer, BaseException):
                        raise answer
                return [answer for answer in answers if isinstance(answer, str)]
            case _:
                return [await self.awaited.options(**options(kind, tag)).enqueue(work, tag)]

    def enqueue_on(self, connection: object, queue: str) -> None:
        self.runner.run(self.awaited.options(connection=connection, queue=queue).enqueue(work, "on"))

    @contextmanager
    def transaction(self) -> Generator[object]:
        opened = self.storage.atransaction()
        yield self.runner.run(opened.__aenter__())
        self.runner.run(opened.__aexit__(None, None, None))

    def close(self) -> None:
        self.runner.run(self.awaited.close())
        self.runner.close()
        super().close()


def rows(tag: str) -> Iterator[dict[str, Any]]:
    return ({"tag": tag, "row": row} for row in range(ROWS))


def options(kind: str, tag: str) -> Any:
    """What makes a call of this kind; the same for the same tag."""
    kinds = {"id": {"id": uuid.uuid5(uuid.NAMESPACE_OID, tag)}, "key": {"unique_key": tag}, "delayed": {"delay": 60}}
    return kinds.get(kind, {})


class Ledger:
    """What was asked for and what was answered, compared with the table at the end."""

    def __init__(self, first: int = 0) -> None:
        self.told: dict[str, Sequence[str]] = {}
        self.kinds: dict[str, str] = {}
        self.raised: list[BaseException] = []
        self._numbers = count(first)

    def call(self, producer: Producer, kind: str, tag: str | None = None) -> str:
        """Make a call, which may raise what an outage raises and nothing else; return its tag."""
        tag = tag or f"{kind} {next(self._numbers)}"
        self.kinds[tag] = kind
        begin = time.monotonic()
        try:
            self.told[tag] = producer.call(kind, tag)
        except StorageUnavailable as error:
            self.raised.append(error)
        except psycopg.OperationalError as error:
            assert kind == "connection"  # the caller's own connect or commit
            self.raised.append(error)
        assert kind == "connection" or time.monotonic() - begin < producer.storage.connections.timeout + SLACK
        return tag

    def insist(self, producer: Producer, kind: str) -> str:
        """Repeat a call until it is acknowledged."""
        tag, by = self.call(producer, kind), time.monotonic() + 30
        while tag not in self.told:
            assert time.monotonic() < by
            # Another such call is another job, if it cannot be told that it is the same.
            tag = self.call(producer, kind, tag if kind in {"id", "key"} else None)
        return tag

    def verify(self, database: Database) -> None:
        """Compare with the table: all or nothing of each call, once, and what was acknowledged is there."""
        stored: dict[str, list[tuple[int, str]]] = {tag: [] for tag in self.kinds}
        bodies = "select data->>'tag', coalesce((data->>'row')::int, 0), id::text from dbjobq.job"
        for tag, row, job_id in database.rows(bodies):
            stored[tag].append((row, job_id))
        for tag, found in stored.items():
            kind, size = self.kinds[tag], {"many": ROWS, "group": 20}.get(self.kinds[tag], 1)
            assert max(Counter(row for row, _ in found).values(), default=1) == 1, f"{tag} is there twice"
            assert len(found) in {0, size} or kind == "group", f"{tag} is there in part"
            if tag in self.told:
                assert sorted(self.told[tag]) == sorted(job_id for _, job_id in found), f"{tag} is not as it was told"
        places = "select count(*) from dbjobq.job where id not in (select job_id from dbjobq.ready"
        assert database.value(places + " union all select job_id from dbjobq.scheduled)") == 0
        assert database.value("select count(*) from dbjobq.ready") <= database.value("select count(*) from dbjobq.job")
        keys = "select count(*) from dbjobq.unique_key where job_id not in (select id from dbjobq.job)"
        assert database.value(keys) == 0


@pytest.fixture(params=[Producer, EagerProducer, AsyncProducer], ids=["sync", "prepared", "async"])
def kind_of_producer(request: pytest.FixtureRequest) -> type[Producer]:
    made: type[Producer] = request.param
    return made


@pytest.fixture
def through(dsn: str) -> Iterator[tuple[FaultProxy, str]]:
    proxy, address = proxied(dsn)
    with proxy:
        yield proxy, address


@pytest.fixture
def proxy(through: tuple[FaultProxy, str]) -> FaultProxy:
    return through[0]


@pytest.fixture
def producer(kind_of_producer: type[Producer], through: tuple[FaultProxy, str]) -> Iterator[Producer]:
    """Enqueues by way of the proxy; its pool is connected."""
    producer = kind_of_producer(through[1])
    producer.warm_up()
    yield producer
    producer.close()


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.kinds["warm"] = "one"
    return ledger


def test_each_call_is_refused_while_the_server_is_away_and_made_when_it_is_back(
    proxy: FaultProxy, producer: Producer, ledger: Ledger, database: Database
) -> None:
    proxy.refuse()
    for kind in producer.KINDS:
        ledger.call(producer, kind)
    assert ledger.told == {}
    assert database.value("select count(*) from dbjobq.job") == 1
    proxy.heal()
    for kind in producer.KINDS:
        ledger.insist(producer, kind)
    ledger.verify(database)


def test_each_call_waits_for_a_server_that_is_back_in_time(
    kind_of_producer: type[Producer], through: tuple[FaultProxy, str], ledger: Ledger, database: Database
) -> None:
    proxy, address = through
    producer = kind_of_producer(address, timeout=20.0)
    producer.warm_up()
    for kind in set(producer.KINDS) - {"connection"}:
        proxy.refuse()
        back = threading.Timer(0.3, proxy.heal)
        back.start()
        ledger.call(producer, kind)
        back.join()
    assert ledger.raised == []
    ledger.verify(database)
    producer.close()


@pytest.mark.slow
def test_a_call_goes_on_looking_for_a_server_that_is_away_for_long(
    kind_of_producer: type[Producer], through: tuple[FaultProxy, str], ledger: Ledger, database: Database
) -> None:
    proxy, address = through
    producer = kind_of_producer(address, timeout=60.0)
    producer.warm_up()
    proxy.refuse()
    since = time.monotonic()
    call = threading.Thread(target=ledger.call, args=(producer, "delayed"))
    call.start()
    until(lambda: time.monotonic() - since > 6)
    looked = proxy.refused
    until(lambda: proxy.refused > looked + 3)
    proxy.heal()
    call.join(60)
    assert ledger.raised == []
    ledger.verify(database)
    producer.close()


def test_a_reply_that_is_lost_after_the_commit_makes_no_second_job(
    proxy: FaultProxy, producer: Producer, ledger: Ledger, database: Database
) -> None:
    for kind in producer.KINDS:
        proxy.lose_replies()
        tag = ledger.call(producer, kind)
        proxy.spare()
        assert tag in ledger.told or kind in {"many", "connection"}  # those are not repeated: the jobs are the caller's
    ledger.verify(database)


@pytest.mark.parametrize("kind", ["id", "key"])
def test_a_call_whose_every_reply_is_lost_raises_and_can_be_repeated(
    proxy: FaultProxy, producer: Producer, ledger: Ledger, database: Database, kind: str
) -> None:
    if isinstance(producer, EagerProducer):  # the first reply would be that to preparing it
        for _ in range(2):
            ledger.call(producer, kind)
    proxy.break_off(*[0] * 50)
    tag = ledger.call(producer, kind)
    assert tag not in ledger.told
    assert database.value("select count(*) from dbjobq.job where data->>'tag' = %s", tag) == 1
    proxy.heal()
    until(lambda: tag in ledger.told or ledger.call(producer, kind, tag) in ledger.told)
    ledger.verify(database)


def test_a_bulk_whose_answers_break_off_anywhere_is_there_as_a_whole_or_not_at_all(
    proxy: FaultProxy, producer: Producer, ledger: Ledger, database: Database
) -> None:
    for length in range(0, 320, 16):
        proxy.break_off(length)
        ledger.call(producer, "many")
        proxy.spare()
    assert ledger.raised
    ledger.verify(database)


def broken_off(
    proxy: FaultProxy, producer: Producer, ledger: Ledger, chance: random.Random, *, calls: int, most: int
) -> None:
    """Make calls whose answers end somewhere, with the connection; those of their repeats, too."""
    for _ in range(calls):
        kind = chance.choice(producer.KINDS)
        proxy.break_off(*(chance.randrange(chance.choice([20, 80, 500])) for _ in range(chance.randint(1, most))))
        (ledger.insist if kind in {"id", "key"} else ledger.call)(producer, kind)
        proxy.spare()
    assert ledger.told


def test_answers_that_break_off_anywhere(
    proxy: FaultProxy, producer: Producer, ledger: Ledger, database: Database
) -> None:
    broken_off(proxy, producer, ledger, random.Random(1), calls=25, most=1)
    ledger.verify(database)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_answers_that_break_off_again_and_again(
    proxy: FaultProxy, producer: Producer, ledger: Ledger, database: Database, seed: int
) -> None:
    broken_off(proxy, producer, ledger, random.Random(seed), calls=25, most=3)
    ledger.verify(database)


def test_each_call_into_a_black_hole_ends_in_time_and_the_next_one_is_not_in_it(
    proxy: FaultProxy, producer: Producer, ledger: Ledger, database: Database
) -> None:
    for kind in producer.KINDS:
        if kind == "connection":  # the caller's own, and so is its patience
            continue
        proxy.blackhole()
        tag = ledger.call(producer, kind)
        assert tag not in ledger.told
        assert "within 0.5 s" in str(ledger.raised[-1])
        proxy.heal()
        ledger.insist(producer, "id" if kind == "group" else kind)
    ledger.verify(database)


def test_connections_that_lead_nowhere_cost_one_call_and_not_one_each(
    proxy: FaultProxy, producer: Producer, ledger: Ledger, database: Database
) -> None:
    with producer.transaction(), producer.transaction():
        pass  # both of the pool's connections are made
    proxy.strand()
    ledger.call(producer, "one")
    assert len(ledger.raised) == 1
    for kind in producer.KINDS:
        ledger.call(producer, kind)
    assert len(ledger.raised) == 1
    ledger.verify(database)


def test_a_first_call_into_a_black_hole_ends_in_time(
    kind_of_producer: type[Producer], through: tuple[FaultProxy, str], ledger: Ledger, database: Database
) -> None:
    """Nothing is connected yet, and several threads want to: they do not wait for each other's attempts."""
    proxy, address = through
    with suppress(psycopg.OperationalError), psycopg.connect(address):
        proxy.blackhole()
    producer = kind_of_producer(address)
    calls = 1 if kind_of_producer is AsyncProducer else 3
    threads = [threading.Thread(target=ledger.call, args=(producer, "one")) for _ in range(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT + SLACK)
    assert [type(error) for error in ledger.raised] == [StorageUnavailable] * calls
    proxy.heal()
    ledger.insist(producer, "one")
    producer.close()


def test_a_server_that_does_not_come_to_it_is_not_waited_for(
    producer: Producer, ledger: Ledger, database: Database, dsn: str
) -> None:
    """Somebody holds a lock: keepalives go on, and no answer comes."""
    for kind in producer.KINDS:
        if kind == "connection":
            continue
        with psycopg.connect(dsn) as other:
            other.execute("lock table dbjobq.job")
            tag = ledger.call(producer, kind)
            assert tag not in ledger.told
            said = "may have happened" if kind != "many" else "did not answer"
            assert said in str(ledger.raised[-1])
        ledger.insist(producer, kind if kind in {"id", "key"} else "one")
    until(lambda: not database.rows("select pid from pg_locks where relation = 'dbjobq.job'::regclass"))
    ledger.verify(database)


def test_a_pool_that_is_full_is_said_and_nothing_is_stored(
    kind_of_producer: type[Producer], dsn: str, ledger: Ledger, database: Database
) -> None:
    producer = kind_of_producer(dsn, max_size=1)
    producer.warm_up()
    with producer.transaction():
        for kind in set(producer.KINDS) - {"connection"}:
            ledger.call(producer, kind)
            assert "max_size" in str(ledger.raised[-1])
            assert "Nothing was stored" in str(ledger.raised[-1])
    assert ledger.told == {}
    assert database.value("select count(*) from dbjobq.job") == 1
    for kind in producer.KINDS:
        ledger.insist(producer, kind)
    ledger.verify(database)
    producer.close()


@pytest.mark.parametrize("name", ["default", "new here"])
def test_a_callers_transaction_may_hold_the_pools_last_connection(
    dsn: str, database: Database, kind_of_producer: type[Producer], name: str
) -> None:
    """Nothing more is needed to enqueue in it, also at first, when the queue's number is not known."""
    producer = kind_of_producer(dsn, max_size=1)
    with producer.transaction() as connection:
        producer.enqueue_on(connection, name)
    assert database.value("select count(*) from dbjobq.job") == 1
    producer.close()


def test_a_bulk_may_take_longer_than_the_timeout_while_it_gets_on(
    kind_of_producer: type[Producer], dsn: str, database: Database
) -> None:
    producer = kind_of_producer(dsn, timeout=0.5)

    def slowly() -> Iterator[dict[str, Any]]:
        for row in range(3):
            time.sleep(0.4)  # what it costs to make a job
            yield {"tag": "slow", "row": row}

    made: Any = producer.queue.enqueue_many(work, slowly())
    assert len(made) == database.value("select count(*) from dbjobq.job") == 3
    producer.close()


def test_a_server_that_crashes_again_and_again_under_producers(kind_of_producer: type[Producer]) -> None:
    """The real one, stopped in the middle of its work and started again, as by `pg_ctl -m immediate`."""
    ledgers: list[Ledger] = []
    over = threading.Event()

    def produce(dsn: str, number: int) -> None:
        ledger, chance = Ledger(number * 1_000_000), random.Random(number)
        ledgers.append(ledger)
        producer = kind_of_producer(dsn, timeout=3.0)
        while not over.is_set():
            kind = chance.choice(producer.KINDS)
            (ledger.insist if kind in {"id", "key"} else ledger.call)(producer, kind)
        producer.close()

    with ExitStack() as stack:
        cluster = Cluster(standby=False)
        stack.callback(cluster.close)
        dsn = cluster.dsn()
        migrate(dsn)
        threads = [threading.Thread(target=produce, args=(dsn, number)) for number in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            made = sum(len(ledger.told) for ledger in ledgers)
            until(lambda made=made: sum(len(ledger.told) for ledger in ledgers) > made + 50)  # type: ignore[misc]
            cluster.primary.crash()
            cluster.primary.start()
        over.set()
        for thread in threads:
            thread.join(60)
        both = Ledger()
        for ledger in ledgers:
            both.told |= ledger.told
            both.kinds |= ledger.kinds
        with Database(dsn) as database:
            both.verify(database)


def test_calls_of_several_threads_each_have_their_own_deadline(dsn: str, database: Database) -> None:
    """The one that is late is cut, and nobody who has its connection, or another, at that time."""
    producer = Producer(dsn, max_size=4)
    answers: list[object] = []

    def enqueue(queue: Callable[..., str], **arguments: Any) -> None:
        try:
            answers.append(queue(work, **arguments))
        except StorageUnavailable as error:
            answers.append(error)

    with psycopg.connect(dsn) as other:
        producer.queue.options(connection=other, unique_key="held").enqueue(work, "holder")
        stuck = threading.Thread(
            target=enqueue, args=(producer.queue.options(unique_key="held").enqueue,), kwargs={"tag": "a"}
        )
        stuck.start()
        while stuck.is_alive():
            producer.queue.enqueue(work, tag="free")
        assert isinstance(answers[0], StorageUnavailable)
    producer.close()


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), "5"])
def test_a_timeout_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout="):
        PostgresStorage("postgresql://localhost/app", timeout=wrong)
