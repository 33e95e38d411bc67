"""Substitutes for a result that PostgreSQL refuses to write: the value is dropped, or the job is set aside.

A row that makes a statement fail by itself must neither end the worker, and the next one that gets it, nor keep back
the results that are written with it.
"""

from __future__ import annotations

from typing import Final

import psycopg

from dbjobq.codec.json import storable_text
from dbjobq.events.bus import emit
from dbjobq.events.names import JOB_SET_ASIDE
from dbjobq.storage.postgres.connect.errors import first_line
from dbjobq.storage.values import Outcome

__all__ = ["in_another_form"]

_ROWS_OWN: Final = (psycopg.IntegrityError, psycopg.DataError, psycopg.errors.ProgramLimitExceeded)
"""Errors that a row's own values cause; a missing right or table is not the row's fault."""


def in_another_form(outcome: Outcome, error: psycopg.Error) -> Outcome | None:
    """Return what to write instead of a refused outcome; None if its job is not the cause, or nothing is left to try.

    First the same outcome without the values that may be at fault; then the job fails, for a person to look at,
    whatever retries it has left.
    """
    said = f"its result could not be stored: {first_line(error)}" if outcome.result is not None else ""
    plain = outcome._replace(result=None, error=_plain(outcome.error or said) or None)
    if plain != outcome:
        return plain
    if outcome.event == "fail" or not isinstance(error, _ROWS_OWN):
        return None
    emit(JOB_SET_ASIDE, outcome.claim, error=first_line(error))
    why = f"set aside: PostgreSQL refuses to write that this attempt ended in {outcome.event!r}: {first_line(error)}"
    return Outcome(outcome.claim, "fail", _plain(f"{why}\n\n{outcome.error or ''}".strip()))


def _plain(text: str) -> str:
    """Return a text that any server can store, whatever its encoding."""
    return storable_text(text).encode("ascii", "backslashreplace").decode()
