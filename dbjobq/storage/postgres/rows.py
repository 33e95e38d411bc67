"""Rows and parameters: how claims and outcomes look to the statements.

Tens of thousands of claimed rows a second pass through here. They stay the plain tuples that psycopg made; `ClaimRow`
says what is in one, and is made only of those that need a closer look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

from dbjobq.models import CODES
from dbjobq.storage.values import Claim, Outcome

__all__ = [
    "ClaimRow",
    "RawRow",
    "accepted_params",
    "array",
    "bodies_params",
    "claims_of",
    "clear_params",
    "finish_params",
    "held_params",
    "ids_param",
    "lacks_data",
    "last_positions",
    "queues_of",
    "with_data",
]

RawRow: TypeAlias = tuple[Any, ...]
"""A row of `claim.sql` as psycopg made it: `ClaimRow._make` names its columns."""


class ClaimRow(NamedTuple):
    """A row of `claim.sql`."""

    job_id: str
    claim: str
    attempts: int
    type: str | None
    """None: the job's body is gone, so that there is nothing to run."""
    data: str | None
    """JSON text; None if it is large, and is to be fetched by `bodies.sql`."""
    queue: int
    priority: int
    max_retries: int
    timeout: float | None
    ties: int
    """See `Claim.ties`."""
    position: int
    created_at: float
    execute_at: float | None
    claimed_at: float
    """The server's time."""
    suspect: bool
    durable: object
    """Nothing to read: makes the claim durable where a job is on its last start."""


_data: Final = itemgetter(ClaimRow._fields.index("data"))
_queue: Final = itemgetter(ClaimRow._fields.index("queue"))
_group: Final = itemgetter(*map(ClaimRow._fields.index, ("queue", "priority")))
_position: Final = itemgetter(ClaimRow._fields.index("position"))


def claims_of(rows: Iterable[RawRow], queues: Mapping[int, str]) -> list[Claim]:
    """Return the claims in rows of `claim.sql` that have their data; `queues` has the names by number."""
    # `Claim(…)` would take twice as long, and the server waits meanwhile.
    new: Callable[[type[Claim], RawRow], Claim] = tuple.__new__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return [
        new(
            Claim,
            (i, claim, attempts, type_, data, queues[queue], priority, retries, timeout, ties, made, due, at, sus),
        )
        for i, claim, attempts, type_, data, queue, priority, retries, timeout, ties, _, made, due, at, sus, _ in rows
    ]


def lacks_data(rows: Iterable[RawRow]) -> bool:
    """Return whether a row came without its data, or without its body."""
    return None in map(_data, rows)


def queues_of(rows: Iterable[RawRow]) -> list[int]:
    """Return the numbers of the queues that rows came from, in the order of the rows."""
    return list(dict.fromkeys(map(_queue, rows)))


def last_positions(rows: Sequence[RawRow]) -> dict[tuple[int, int], int]:
    """Return the last position in each queue and priority; none is later than the claim itself.

    Who may enqueue may write a position that is far in the future.
    """
    if not rows:
        return {}
    latest = int(ClaimRow._make(rows[-1]).claimed_at * 1e6)
    last = dict(zip(map(_group, rows), map(_position, rows), strict=True))
    return {group: min(position, latest) for group, position in last.items()}


def clear_params(queues: Iterable[int], rows: Sequence[ClaimRow]) -> dict[str, str]:
    """Return the parameters of `clear.sql`: `rows` are those of a claim whose bodies are gone."""
    return {
        "queues": array(map(str, queues)),
        "ids": array(row.job_id for row in rows),
        "claims": array(row.claim for row in rows),
    }


def with_data(rows: Sequence[ClaimRow], found: Iterable[tuple[str, str]]) -> list[ClaimRow]:
    """Return a claim's rows with the data that `bodies.sql` found for them; None remains where it found none."""
    data = dict(found)
    return [row._replace(data=data.get(row.job_id)) if row.data is None else row for row in rows]


def bodies_params(rows: Iterable[ClaimRow], room: int) -> dict[str, Any]:
    """Return the parameters of `bodies.sql` for jobs whose data a claim did not bring."""
    return {"ids": array(row.job_id for row in rows), "room": room}


def array(items: Iterable[str]) -> str:
    """Return an array literal of ids or numbers: cheaper than a dump of each item."""
    return f"{{{','.join(items)}}}"


def held_params(claims: Iterable[Claim]) -> dict[str, str]:
    """Return the parameters of a statement that names claims."""
    claims = list(claims)
    return {"ids": array(c.id for c in claims), "claims": array(c.claim for c in claims)}


def ids_param(claims: Iterable[Claim]) -> dict[str, str]:
    """Return the parameter of a statement that names jobs."""
    return {"ids": array(claim.id for claim in claims)}


def accepted_params(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the parameters of `accepted.sql`."""
    return {**held_params(o.claim for o in outcomes), "events": [CODES[o.event] for o in outcomes]}


def finish_params(outcomes: Sequence[Outcome], codec: str | None) -> dict[str, Any]:
    """Return the parameters of `finish.sql`; what the database cannot hold of an error (see `Way.codec`) as escapes."""
    return {
        **accepted_params(outcomes),
        "errors": [holdable(o.error, codec) for o in outcomes],
        "results": [o.result for o in outcomes],
        "delays": [o.delay for o in outcomes],
    }


def holdable(text: str | None, codec: str | None) -> str | None:
    """Return text as the database can hold it."""
    return text if text is None or codec is None else text.encode(codec, "backslashreplace").decode(codec)
