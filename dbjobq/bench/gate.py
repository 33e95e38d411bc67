"""The price of notifying when many enqueue at once (docs/decisions/0004).

Sixteen threads send the statement of `enqueue`, each on a connection of its own, as fast as it is answered: without its
notifying part, as it is while workers are busy (it looks, and does not notify), and as it is while a worker sleeps (it
notifies). They send it through libpq, with no more Python around it than a loop, so that they wait for the server
alone. Nobody listens: the figure is the price of notifying, not of being notified.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from dbjobq.bench.meter import Slice, together
from dbjobq.bench.sample import Measure, Sample, compared
from dbjobq.bench.stage import Stage
from dbjobq.codec.json import dump_arguments
from dbjobq.errors import DBJobQError
from dbjobq.ids import new_id
from dbjobq.storage.postgres.connect.prepared import numbered

__all__ = ["gate"]

GATE_PRODUCERS: Final = 16
NONE, GATED, EVERY = "no NOTIFY", "gate closed", "NOTIFY each"
GATE_ORDER: Final = (NONE, GATED, GATED, NONE, NONE, GATED, GATED, NONE, EVERY, EVERY)
"""The order in a round: a drift of the machine hits both of a pair alike."""


@contextmanager
def gate(stage: Stage) -> Generator[Measure]:
    """Prepare sixteen connections."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(GATE_PRODUCERS))
        producers = [_Producer(stack.enter_context(stage.connect()), stage) for _ in range(GATE_PRODUCERS)]

        def nudge() -> None:
            for producer in producers:
                producer.enqueue(silent=True)

        def run(way: str) -> Slice:
            stage.look("update {0}.queue set wanted = %s returning id", way == EVERY)

            def produce() -> int:
                until = time.monotonic() + stage.sizes.gate_seconds
                enqueue = partial(_Producer.enqueue_until, moment=until, silent=way == NONE)
                return sum(pool.map(enqueue, producers))

            return stage.meter.slice(produce, nudge)

        def measure() -> Sample:
            slices = [(way, run(way)) for way in GATE_ORDER]
            sample = {way: together([it for kind, it in slices if kind == way]) for way in (NONE, GATED, EVERY)}
            return compared(compared(sample, NONE), NONE, "server_us", "server_ratio")

        yield measure


class _Producer:
    """One connection that enqueues.

    Args:
        connection: The producer's own connection.
        stage: Has the statement and the job's arguments.
    """

    def __init__(self, connection: psycopg.Connection[Any], stage: Stage) -> None:
        self._connection = connection.pgconn
        whole, names = numbered(stage.storage.statements["enqueue"].replace(b"%(timeout)s", b"null"))
        head, notifies, rest = whole.rpartition(b"select case when wake then pg_notify(")
        if not notifies or not rest.endswith(b"from served"):
            raise DBJobQError("enqueue.sql does not end in a select of pg_notify: this measurement must learn why")
        for name, statement in ((b"whole", whole), (b"silent", head + b"select 1 from served")):
            _check(self._connection.prepare(name, statement), ExecStatus.COMMAND_OK)
        (row,) = stage.rows(1)
        values = {
            "queue": b"%d" % stage.storage.queue_numbers.intern("default").run(),
            "name": b"default",
            "priority": b"5",
            "max_retries": b"3",
            "type": b"bench.noop_async",
            "data": dump_arguments(row).encode(),
            "id": b"",
        }
        self._values, self._id = [values[name] for name in names], names.index("id")

    def enqueue(self, *, silent: bool) -> None:
        """Enqueue one job, with the notifying part of the statement or without."""
        self._values[self._id] = new_id().encode()
        _check(self._connection.exec_prepared(b"silent" if silent else b"whole", self._values), ExecStatus.TUPLES_OK)

    def enqueue_until(self, moment: float, *, silent: bool) -> int:
        """Enqueue until that moment, and return how many jobs."""
        jobs = 0
        while time.monotonic() < moment:
            self.enqueue(silent=silent)
            jobs += 1
        return jobs


def _check(result: PGresult, wanted: ExecStatus) -> None:
    if result.status != wanted:
        raise DBJobQError(f"PostgreSQL refused an enqueue: {result.get_error_message()}")
