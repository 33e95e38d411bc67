"""Rows and parameters: how claims and outcomes look to the statements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from dbjobq.models import CODES
from dbjobq.storage.values import Claim, Outcome

__all__ = [
    "CLAIMED_AT",
    "POSITION",
    "PRIORITY",
    "QUEUE",
    "accepted_params",
    "array",
    "bodies_params",
    "claims_of",
    "clear_params",
    "finish_params",
    "held_params",
    "with_data",
]

JOB_ID: Final = 0
CLAIM: Final = 1
TYPE: Final = 3
DATA: Final = 4
QUEUE: Final = 5
PRIORITY: Final = 6
POSITION: Final = 10
CLAIMED_AT: Final = 13
SUSPECT: Final = 14
"""Columns of a claim's row: whose it is, the type (None: the body is gone), the data (None: it is large), where
it stood, the queue by its number,
and the server's time."""


def claims_of(rows: Sequence[Sequence[Any]], queues: Mapping[int, str]) -> list[Claim]:
    """Return claims from `claim.sql`'s rows; `queues` has the names by number."""
    return [
        Claim(i, claim, attempts, type_, data, queues[queue], priority, retries, timeout, ties, made, due, at, sus)
        for i, claim, attempts, type_, data, queue, priority, retries, timeout, ties, _, made, due, at, sus, _ in rows
    ]


def clear_params(queues: Iterable[int], rows: Sequence[Sequence[Any]]) -> dict[str, str]:
    """Return the parameters of `clear.sql`: `rows` are those of a claim whose bodies are gone."""
    ids, claims = (array(row[column] for row in rows) for column in (JOB_ID, CLAIM))
    return {"queues": array(map(str, queues)), "ids": ids, "claims": claims}


def with_data(rows: Sequence[tuple[Any, ...]], found: Iterable[tuple[str, str]]) -> list[tuple[Any, ...]]:
    """Return a claim's rows with the data that `bodies.sql` found for them; None remains where it found none."""
    data = dict(found)
    return [(*row[:DATA], data.get(row[JOB_ID]), *row[DATA + 1 :]) if row[DATA] is None else row for row in rows]


def bodies_params(rows: Sequence[tuple[Any, ...]], room: int) -> dict[str, Any]:
    """Return the parameters of `bodies.sql` for jobs whose data a claim did not bring."""
    return {"ids": array(row[JOB_ID] for row in rows), "room": room}


def array(items: Iterable[str]) -> str:
    """Return an array literal of ids or numbers: cheaper than a dump of each item."""
    return f"{{{','.join(items)}}}"


def held_params(claims: Iterable[Claim]) -> dict[str, str]:
    """Return the parameters of a statement that names claims."""
    claims = list(claims)
    return {"ids": array(c.id for c in claims), "claims": array(c.claim for c in claims)}


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
