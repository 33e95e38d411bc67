"""Claims beside a backlog: ten jobs at a time, by a worker's session, in schemas that hold many jobs of one kind each.

The claims go round the schemas in turn. Claimed jobs are completed outside of the measured time, and as many are
enqueued before the next round.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final, LiteralString

from psycopg import sql

from dbjobq.bench.jobs import noop_async
from dbjobq.bench.sample import Measure, Sample, compared, spread
from dbjobq.bench.stage import Stage
from dbjobq.errors import DBJobQError
from dbjobq.queue.queues import JobQueue
from dbjobq.storage.postgres_storage import PostgresStorage
from dbjobq.storage.values import Exchange, Outcome
from dbjobq.storage.worker_port import Session

__all__ = ["backlog"]

BACKLOG_CLAIM: Final = 10
"""Jobs in one claim of this measurement."""
LEASE: Final = 3600.0
"""The sessions' lease in seconds: long, since no heartbeat renews it."""

_JOB: Final = """
insert into {schema}.job (position, queue, priority, max_retries, id, type, data, execute_at, unique_key)
select 1000000 + n, {queue}, 5, 3, ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'bench.noop_async',
       json_build_object('number', n, 'padding', {padding}), {execute_at}, {unique_key}
  from generate_series(1, {count}) as n
"""
_READY: Final = """
insert into {schema}.ready (position, queue, priority, job_id) select position, queue, priority, id from {schema}.job
"""
_SCHEDULED: Final = """
insert into {schema}.scheduled (run_at, enqueued, queue, priority, job_id)
select execute_at, position, queue, 10, id from {schema}.job
"""
_DONE: Final = """
insert into {schema}.done (started_at, claim, worker, attempts, status, job_id)
select now(), 1, 1, 0, 2, id from {schema}.job
"""
_KEYS: Final = "insert into {schema}.unique_key (key, job_id) select unique_key, id from {schema}.job"
_KINDS: Final[Mapping[str, Sequence[LiteralString]]] = {
    "ready": (_JOB, _READY),
    "future": (_JOB, _SCHEDULED),
    "finished": (_JOB, _DONE),
    "other queue": (_JOB, _READY),
    "unique keys": (_JOB, _READY, _KEYS),
}
"""The statements that make the jobs of each kind."""


@contextmanager
def backlog(stage: Stage) -> Generator[Measure]:
    """Fill a schema for each kind, and prepare to claim from them."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        places: dict[str, tuple[JobQueue, Session]] = {}
        for kind in ("empty", *_KINDS):
            storage = stack.enter_context(stage.another(kind.replace(" ", "_")))
            _fill(stage, storage, kind)
            session = storage.session(f"bench:{kind}", ["default"], LEASE)
            runner.run(session.open())
            stack.callback(_close, runner, session)
            places[kind] = (JobQueue(storage), session)

        def measure() -> Sample:
            for queue, _ in places.values():
                queue.enqueue_many(noop_async, stage.rows(stage.sizes.claims * BACKLOG_CLAIM))
            sessions = {kind: session for kind, (_, session) in places.items()}
            waits = runner.run(_claims(sessions, stage.sizes.claims))
            return compared({kind: spread(seconds) for kind, seconds in waits.items()}, "empty", "p50_ms")

        yield measure


def _close(runner: asyncio.Runner, session: Session) -> None:
    runner.run(session.close())


def _fill(stage: Stage, storage: PostgresStorage, kind: str) -> None:
    queue = storage.queue_numbers.intern("other" if kind == "other queue" else "default").run()
    values = {
        "schema": sql.Identifier(storage.schema),
        "queue": sql.Literal(queue),
        "padding": sql.Literal(stage.padding),
        "count": sql.Literal(stage.sizes.backlog),
        "execute_at": sql.SQL("now() + interval '1 year'" if kind == "future" else "null"),
        "unique_key": sql.SQL("'bench:' || n" if kind == "unique keys" else "null"),
    }
    with stage.connect() as connection:
        for statement in _KINDS.get(kind, ()):
            connection.execute(sql.SQL(statement).format(**values))
        for table in ("job", "ready", "scheduled", "done", "unique_key"):
            connection.execute(sql.SQL("vacuum analyze {}").format(sql.Identifier(storage.schema, table)))


async def _claims(sessions: Mapping[str, Session], times: int) -> dict[str, list[float]]:
    """Claim `times` times from each session; return the seconds that each claim took."""
    waits: dict[str, list[float]] = {kind: [] for kind in sessions}
    for _ in range(times):
        for kind, session in sessions.items():
            begun = time.perf_counter()
            claims = (await session.step(Exchange(want=BACKLOG_CLAIM))).claims
            waits[kind].append(time.perf_counter() - begun)
            if len(claims) != BACKLOG_CLAIM:
                raise DBJobQError(f"{BACKLOG_CLAIM} jobs were there to be claimed ({kind}), but {len(claims)} came")
            outcomes = [Outcome(claim, "complete") for claim in claims]
            await session.step(Exchange(outcomes))
    return waits
