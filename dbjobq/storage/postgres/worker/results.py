"""The results that an exchange writes: all of them at once, or, where PostgreSQL refuses something, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from dbjobq.models import CODES
from dbjobq.storage.postgres.connect.errors import is_passing
from dbjobq.storage.postgres.rows import accepted_params, finish_params, held_params, ids_param
from dbjobq.storage.postgres.worker.link import Link
from dbjobq.storage.postgres.worker.set_aside import in_another_form
from dbjobq.storage.values import Outcome

__all__ = ["Results", "cancelled", "write_one_by_one"]


class Results:
    """The results that one exchange writes, and whether they were accepted.

    Args:
        outcomes: The results: how attempts ended.
        connection: Theirs.
    """

    def __init__(self, outcomes: Sequence[Outcome], connection: psycopg.AsyncConnection[Any]) -> None:
        self._plain = [outcome for outcome in outcomes if outcome.plain]
        self._other = [o for o in outcomes if not o.plain] if len(self._plain) < len(outcomes) else []
        self._completed, self._finished = connection.cursor(binary=True), connection.cursor()

    def __len__(self) -> int:
        return len(self._plain) + len(self._other)

    @property
    def hand_back(self) -> bool:
        """Whether a job is handed back among them, to the place where it stood."""
        return any(outcome.event == "release" for outcome in self._other)

    async def send(self, link: Link) -> None:
        """Send the results, as part of a pipeline."""
        if self._plain:
            claims = held_params(outcome.claim for outcome in self._plain)
            await self._completed.execute(link.statements["finish_completed"], claims)
        if self._other:
            await self._finished.execute(link.statements["finish"], finish_params(self._other, link.codec))

    async def read(self, link: Link) -> tuple[list[Outcome], list[Outcome]]:
        """Return the results that came too late, and those whose jobs failed since no worker knows their type."""
        refused: list[Outcome] = []
        if self._plain and self._completed.rowcount != len(self._plain):
            refused += await _refused(link, self._plain, set())
        unknown = [outcome for outcome in self._other if outcome.event == "unknown"]
        gave_up: list[Outcome] = []
        if self._other and (unknown or self._finished.rowcount != len(self._other)):
            came_of = {row[0]: row[1] for row in await self._finished.fetchall()}
            gave_up = [outcome for outcome in unknown if came_of.get(outcome.claim.id) == CODES["fail"]]
            refused += await _refused(link, self._other, set(came_of))
        return refused, gave_up


async def write_one_by_one(link: Link, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Write each result by itself; one that PostgreSQL refuses in another form. Return those that came too late."""
    return [outcome for outcome in outcomes if not await _write_alone(link, outcome)]


async def _write_alone(link: Link, outcome: Outcome) -> bool:
    try:
        async with link.transaction():
            finish = link.statements["finish"]
            cursor = await link.connection.execute(finish, finish_params([outcome], link.codec))
    except psycopg.Error as error:
        if is_passing(error) or (another := in_another_form(outcome, error)) is None:
            raise
        return await _write_alone(link, another)
    return cursor.rowcount == 1 or not await _refused(link, [outcome], set())


async def cancelled(link: Link, refused: Sequence[Outcome]) -> set[str]:
    """Return the ids of those refused results whose jobs are cancelled."""
    if not refused:
        return set()
    return {row[0] for row in await link.rows("cancelled", ids_param(outcome.claim for outcome in refused))}


async def _refused(link: Link, sent: Sequence[Outcome], accepted: set[str]) -> list[Outcome]:
    """Return the results that came too late, without those that were written before, when the answer was lost."""
    if missing := [outcome for outcome in sent if outcome.claim.id not in accepted]:
        accepted |= {row[0] for row in await link.rows("accepted", accepted_params(missing))}
    return [o for o in missing if o.claim.id not in accepted and o.event not in {"release", "unknown"}]
