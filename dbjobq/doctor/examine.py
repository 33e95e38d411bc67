"""Makes all of the doctor's checks, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from functools import partial
from typing import Final, NamedTuple

from dbjobq.doctor import server, tables, work
from dbjobq.doctor.findings import Finding, Rows
from dbjobq.errors import ConfigError, NotSupported, SchemaError
from dbjobq.storage.base import BaseStorage
from dbjobq.storage.postgres.listening import Listening
from dbjobq.storage.postgres.schema_version import HEAD
from dbjobq.storage.postgres_storage import PostgresStorage

__all__ = ["examine"]


class _Check(NamedTuple):
    """A statement, and a function that judges its rows."""

    name: str
    statement: str
    judge: Callable[[Rows], list[Finding]]
    fine: str = "nothing to be mended"
    """The finding where `judge` returns none."""
    pinned: bool = False
    """Whether its plan is pinned, for a statement that looks up rows one by one. Few are: a pinned one takes more
    statements, and a statement that is sent often is prepared, which fails behind a pooler."""


_OF_SERVER: Final = (
    _Check("server", "doctor_server", server.judge_server),
    _Check("settings", "doctor_settings", server.judge_settings, "as they should be"),
    _Check("notifications", "doctor_notify", server.judge_notifications),
    _Check("horizon", "doctor_horizon", tables.judge_horizon, "no transaction is open for long"),
)
_OF_TABLES: Final = (
    _Check("dead rows", "doctor_tables", tables.judge_dead_rows, "few"),
    _Check("autovacuum", "doctor_tables", tables.judge_autovacuum, "comes when it is due"),
    _Check("bloat", "doctor_tables", tables.judge_bloat, "none"),
    _Check("indexes", "doctor_indexes", tables.judge_indexes, "all there and valid"),
    _Check("publications", "doctor_publications", tables.judge_publications, "none includes tables of dbjobq"),
    _Check("queues", "glance_queues", work.judge_queues, pinned=True),
    _Check("schedule", "doctor_overdue", work.judge_overdue, "nothing is overdue"),
    _Check("leases", "doctor_stale", work.judge_leases, "all are held by the living"),
    _Check("states", "doctor_states", work.judge_states, "each of the newest 10,000 jobs has one", pinned=True),
    _Check("orphans", "doctor_orphans", work.judge_orphans, "none", pinned=True),
)


def examine(storage: BaseStorage, modules: Iterable[str] = ()) -> list[Finding]:
    """Look at a queue's database, and return at least one finding for each check.

    Takes a second or two. Not to be called on a running event loop.

    Args:
        storage: A PostgresStorage.
        modules: The modules that workers are given, imported already; the types of waiting jobs are looked up in them.

    Raises:
        NotSupported: The storage is no PostgresStorage.
        ConfigError: The DSN does not work.
        StorageUnavailable: PostgreSQL does not answer.
    """
    if not isinstance(storage, PostgresStorage):
        raise NotSupported(f"{storage.name} has no doctor: it looks at PostgreSQL's own state")
    try:
        storage.check().run()
    except SchemaError as error:
        return [Finding("schema", "critical", str(error)), *_made(storage, _OF_SERVER)]
    judge_types = partial(work.judge_types, modules=tuple(modules))
    types = _Check("job types", "doctor_types", judge_types, "all are known", pinned=True)
    ways = storage.connections
    return [
        *_made(storage, [_Check("schema", "version", partial(_judge_version, schema=storage.schema))]),
        *_made(storage, _OF_SERVER),
        *server.judge_ways(pooler=ways.pooler(), told=ways.pooled, hears=asyncio.run(_hears(storage))),
        *_made(storage, (*_OF_TABLES, types)),
    ]


def _judge_version(rows: Rows, schema: str) -> list[Finding]:
    found: str = rows[0]["version_num"]
    newer = f", newer than this library's {HEAD}, which runs on it" if found != HEAD else ""
    return [Finding("schema", "ok", f"{schema!r} is at migration {found}{newer}")]


def _made(storage: PostgresStorage, checks: Iterable[_Check]) -> list[Finding]:
    found: list[Finding] = []
    for check in checks:
        try:
            rows = storage.diagnose(check.statement, pinned=check.pinned).run()
        except ConfigError as error:  # there is a connection, so this role may not read what the check reads
            advice = "grant it what a reader may see: `dbjobq grant --as reader`"
            found.append(Finding(check.name, "notice", f"could not be looked at: {error}", advice))
        else:
            found += check.judge(rows) or [Finding(check.name, "ok", check.fine)]
    return found


async def _hears(storage: PostgresStorage) -> bool:
    """Tell whether a notification arrives where workers listen."""
    async with aclosing(Listening(storage.connections, storage.statements).heard()) as everything:
        async for heard in everything:
            if heard.kind in {"echo", "deaf"}:
                return heard.kind == "echo"
    return False
