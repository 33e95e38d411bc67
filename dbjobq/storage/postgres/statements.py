"""Loads the files in `sql/`, and puts a schema's quoted names, `sql/parts/` and the numbers of events into them.

All values are bound, never put in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

from psycopg import sql

from dbjobq.errors import ConfigError
from dbjobq.models import CODES

__all__ = [
    "DURABLE",
    "DURABLY",
    "LOOKING_UP",
    "PIN",
    "PINNED",
    "UNPIN",
    "Statements",
    "check_schema_name",
    "set_local",
    "set_session",
]

PINNED: Final = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
"""Pins the plans of the hot statements, whatever the statistics say of tables that turn over in seconds."""

DURABLY: Final = (
    "case when current_setting('synchronous_commit') in ('off', 'local')"
    " then set_config('synchronous_commit', 'on', true) end"
)
"""Makes the transaction of the statement it is part of durable, whatever role and database have as their default. What
waits for a standby (`remote_write`, `on`, `remote_apply`) is left as it is."""

_ONE: Final = {"which": "= %(id)s::uuid", "patience": ""}
_MANY: Final = {"which": "= any (%(ids)s::uuid[])", "patience": " skip locked"}
_SEARCH: Final = {
    "columns": "job_id as id",
    "key": "job_id",
    "status": "",
    "body": ",\n           lateral (select queue, type from {schema}.job where job.id = looked.id offset 0) as body",
    "condition": "",
}
_LISTED: Final = {"data": "data", "result": "result", "error": "error", "before": "", "cut": ""}
_GIVEN: Final = "array_position(%(queues)s::int[], queue)"
_ALL: Final = {
    "held_queues": "",
    "served": "unnest(%(queues)s::int[]) as served (queue)",
    "behind": "",
    "turns": _GIVEN,
}
_NUMBER: Final = (
    "(date_part('epoch', clock_timestamp()) * 1000)::bigint * 1048576 + nextval({claim_sequence}) %% 1048576"
)
"""Draws the number of a claim, which no other ever has: it holds the time (docs/decisions/0002)."""

_VARIANTS: Final[Mapping[str, Mapping[str, str]]] = {
    "enqueue": {
        "its_queue": "select id, wanted as wake\n"
        "      from {schema}.queue where id = %(queue)s::int and name = %(name)s::text",
        "quiet": "",
    },
    "enqueue_within": {
        "its_queue": "{its_queue}",
        "quiet": " and %(notify)s::bool",
    },
    "claim": {**_ALL, "number": _NUMBER},
    "claim_by_hand": {**_ALL, "number": "%(claim)s::bigint"},
    "dequeue_begin": {"number": _NUMBER},
    "claim_any": {
        "held_queues": "recursive "
        + ", ".join(
            f"{name} (queue) as (\n"
            f"    (select queue from {{schema}}.ready where {within} order by queue limit 1)\n"
            "    union all\n"
            f"    select next.queue\n      from {name}, lateral (\n"
            f"        select queue from {{schema}}.ready where ready.queue > {name}.queue and {within}\n"
            "         order by queue limit 1) as next\n)"
            for name, within in {
                "ahead": "ready.queue >= %(turn)s::int",
                "before": "ready.queue < %(turn)s::int",
            }.items()
        )
        + ", ",
        "served": "(select queue from ahead union all select queue from before) as served",
        "behind": "",
        "turns": "queue < %(turn)s::int, queue",
        "number": _NUMBER,
    },
    "claim_after": {
        "held_queues": "",
        "turns": _GIVEN,
        "number": _NUMBER,
        "served": "unnest(%(after)s::int[], %(priorities)s::int[], %(positions)s::bigint[])\n"
        "               as served (queue, priority, position)",
        "behind": "\n                  and ready.priority = served.priority and ready.position >= served.position",
    },
    "idle": {"of": ""},
    "idle_of": {"of": " and id = any (%(queues)s::int[])"},
    "queues": {"which": "order by id limit %(limit)s::int"},
    "queues_named": {"which": "where name = any (%(names)s::text[])"},
    "queues_numbered": {"which": "where id = any (%(numbers)s::int[])"},
    "cancel": _ONE,
    "cancel_many": _MANY,
    "retry": _ONE | {"as_of": "\n       and (date_part('epoch', finished_at) * 1000000)::bigint = %(ended)s"},
    "retry_many": _MANY | {"as_of": ""},
    "search_all": _SEARCH | {"columns": "id, queue, type", "members": "{schema}.job", "key": "id", "body": ""},
    # Of all jobs those that neither run nor have ended. Each look-up is a subquery: none can become a join.
    "search_pending": _SEARCH
    | {
        "columns": "id, queue, type",
        "members": "{schema}.job",
        "key": "id",
        "body": "",
        "condition": "\n       and (select true from {schema}.done where done.job_id = looked.id) is null"
        "\n       and (select true from {schema}.lease where lease.job_id = looked.id) is null",
    },
    "search_waiting": _SEARCH
    | {"members": "(select job_id from {schema}.ready union all select job_id from {schema}.scheduled) as waiting"},
    "search_running": _SEARCH | {"members": "{schema}.lease"},
    "search_completed": _SEARCH
    | {"columns": "job_id as id, status", "members": "{schema}.done", "condition": "\n       and status = {complete}"},
    # Literals: done_dead is partial.
    "search_failed": _SEARCH | {"members": "{schema}.done", "status": " and status = {fail}"},
    "search_cancelled": _SEARCH | {"members": "{schema}.done", "status": " and status = {cancel}"},
    "listed_whole": _LISTED,
    "listed_within": _LISTED
    | {
        "before": ",\n               sum(octet_length(data::text) + coalesce(octet_length(result::text), 0))"
        " over (order by picked.nth rows unbounded preceding exclude current row) as before",
        "cut": " where coalesce(before, 0) < %(bytes)s\n",
    },
    "listed_brief": _LISTED | {"data": "'{{}}'::json", "result": "null::json", "error": "left(error, 500)"},
}
"""Statements that share a file, and what is put into it for each."""

PARTS: Final = "parts"
"""The folder of texts that are put into several statements by their names."""


def check_schema_name(schema: str) -> str:
    """Return `schema` if it can be the name of a schema here.

    Raises:
        ConfigError: It is empty, too long for PostgreSQL (63 bytes), reserved, or holds a character that has a
            meaning in a statement's text.
    """
    if not isinstance(schema, str) or not re.fullmatch(r"[^\x00%:\\{}\"']+", schema):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
        raise ConfigError(f"schema={schema!r}: must be a name without quotes, braces, %, colon or backslash")
    if not schema.isprintable() or len(schema.encode()) > 63 or schema.startswith("pg_"):
        raise ConfigError(f"schema={schema!r}: must be printable, have at most 63 bytes, and not begin with pg_")
    return schema


@cache
def _texts(folder: str) -> dict[str, str]:
    """Return the SQL of a folder's files by their names, comments stripped."""
    found = files("dbjobq.storage").joinpath(folder).iterdir()
    return {
        file.name.removesuffix(".sql"): "\n".join(
            line for line in file.read_text("utf-8").splitlines() if not line.startswith("--")
        )
        for file in found
        if file.name.endswith(".sql")
    }


@cache
def _all_texts() -> dict[str, str]:
    """Return the SQL of all statements by their names, whatever folder they are in."""
    folders = [folder.name for folder in files("dbjobq.storage").joinpath("sql").iterdir() if folder.is_dir()]
    return {name: text for folder in folders if folder != PARTS for name, text in _texts(f"sql/{folder}").items()}


class Statements:
    """The statements for one schema, by name: `statements["claim"]`.

    Args:
        schema: Its name, unquoted.
        durable: What is acknowledged to a caller is durable, whatever role and database have as `synchronous_commit`.

    Raises:
        ConfigError: The name cannot be used.
    """

    def __init__(self, schema: str, *, durable: bool = True) -> None:
        self.schema = check_schema_name(schema)
        name = sql.Identifier(schema).as_string()
        literal = sql.Literal(schema).as_string().strip()

        def quoted(table: str) -> str:
            return sql.Literal(f"{name}.{table}").as_string().strip()

        numbers: dict[str, str] = {event: str(code) for event, code in CODES.items()}
        self._names = {
            **numbers,
            "schema": name,
            "channel": literal,
            "claim_sequence": quoted("claim"),
            "ready": quoted("ready"),
            "scheduled": quoted("scheduled"),
            "done": quoted("done"),
            "namespace": sql.Literal(name).as_string().strip(),
            "version_table": quoted("schema_version"),
            "durable": DURABLY,
            "acknowledged": DURABLY if durable else "null",
        }
        self._names |= {part: text.format_map(self._names) for part, text in _texts(f"sql/{PARTS}").items()}
        self.listen = f"listen {name}"
        self._cache: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> bytes:
        """Return a statement as bytes. Raises KeyError for a name that has no file."""
        found = self._cache.get(name)
        if found is None:
            parts = {part: text.format_map(self._names) for part, text in _VARIANTS.get(name, {}).items()}
            texts = _all_texts()
            text = texts.get(name) or texts[name.partition("_")[0]]
            found = self._cache[name] = text.format_map(self._names | parts).encode()
        return found

    def copy(self, table: str, columns: str) -> bytes:
        """Return `copy … from stdin` for one of our tables; what is sent is UTF-8, whatever the session has."""
        return f"copy {self._names['schema']}.{table} ({columns}) from stdin (encoding 'UTF8')".encode()


def set_local(**settings: str) -> bytes:
    """Return a statement that sets these for the transaction it is sent in, also behind a pooler."""
    return _set(settings, "true")


def set_session(**settings: str) -> bytes:
    """Return a statement that sets these for as long as the connection lasts; not for use behind a pooler."""
    return _set(settings, "false")


def _set(settings: Mapping[str, str], local: str) -> bytes:
    calls = (f"set_config('{name}', '{value}', {local})" for name, value in settings.items())
    return f"select {', '.join(calls)}".encode()


PIN: Final = set_session(**PINNED)
UNPIN: Final = (
    b"select set_config(name, reset_val, false) from pg_settings where name = any ('{%s}')" % ",".join(PINNED).encode()
)
"""Pins the plans of a connection of our own pools; and gives it back role's and database's settings, for statements
that may be anybody's, such as a job's own."""

LOOKING_UP: Final = set_local(jit="off", enable_seqscan="off", enable_bitmapscan="off")
"""Precedes a statement of one look-up for each row, also where the statistics are what is wrong."""

DURABLE: Final = f"select {DURABLY}".encode()
"""Precedes what must not be lost in a crash once it is acknowledged, whatever role and database have as defaults."""
