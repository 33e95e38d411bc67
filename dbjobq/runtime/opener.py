"""Imports the modules of job types that a worker meets for the first time, never on its event loop.

A module may take seconds to import, or never end, and a row of the table decides when. So a thread imports it, one for
each job type however many of its jobs have come. The thread is a daemon, which keeps no worker from ending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread
from typing import TypeAlias

from dbjobq.attempt.outcome import unknown
from dbjobq.events.bus import emit
from dbjobq.events.names import MODULE_IMPORTING
from dbjobq.jobs.registry import JobType, find, known, openable
from dbjobq.storage.values import Claim, Outcome

__all__ = ["Opener"]

_Answer: TypeAlias = "asyncio.Future[JobType | BaseException]"


class Opener:
    """Finds job types by their names. Used on the worker's loop.

    Args:
        imports: The modules that were named to the worker.
        unknown_within: Seconds for which jobs of a type that is not found are put off before they fail.
    """

    def __init__(self, imports: Sequence[str], unknown_within: float) -> None:
        self._imports, self._unknown_within = imports, unknown_within
        self._opening: dict[str, _Answer] = {}

    def quickly(self, name: str) -> JobType | None:
        """Return a job type if that takes no import.

        Raises:
            UnknownJobType: No import could find the type either.
        """
        task = known(name, self._imports)
        return task if task is not None or openable(name, self._imports) else find(name, self._imports)

    async def find(self, claim: Claim) -> JobType:
        """Return a job's type, imported by a thread.

        Raises:
            UnknownJobType: There is no task of this type.
            BaseException: The module has raised something that is no Exception.
        """
        answer = self._opening.get(claim.type)
        if answer is None:
            modules = ", ".join(openable(claim.type, self._imports))
            emit(MODULE_IMPORTING, claim, modules=modules)
            answer = self._opening[claim.type] = asyncio.get_running_loop().create_future()
            answer.add_done_callback(lambda _: self._opening.pop(claim.type))
            Thread(target=self._import, args=(claim.type, answer), name="dbjobq-import", daemon=True).start()
        found = await asyncio.shield(answer)
        if isinstance(found, BaseException):
            raise found
        return found

    def unknown(self, claim: Claim, error: BaseException) -> Outcome:
        """Return what becomes of a job whose task was not found."""
        return unknown(claim, error, self._unknown_within)

    def _import(self, name: str, answer: _Answer) -> None:
        found: JobType | BaseException
        try:
            found = find(name, self._imports)
        except BaseException as error:  # a module may do anything when it is imported
            found = error
        with suppress(RuntimeError):  # the event loop has ended meanwhile
            answer.get_loop().call_soon_threadsafe(_answer, answer, found)


def _answer(answer: _Answer, found: JobType | BaseException) -> None:
    if not answer.done():
        answer.set_result(found)
