"""Runs a transactional job: its function's writes and its completion commit together, or not at all (contract §6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from dbjobq.attempt import completed
from dbjobq.errors import NotSupported, StorageUnavailable
from dbjobq.storage.base import BaseStorage, Claim

__all__ = ["HandlerFailed", "Refused", "ain_transaction", "in_transaction"]


class HandlerFailed(Exception):  # noqa: N818 - carries the failure out of the transaction, which is rolled back for it
    """The job's function raised `error`; whatever else is raised here is the database's."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(repr(error))
        self.error = error


class Refused(Exception):  # noqa: N818 - an answer
    """The job was cancelled, or given to another, before it could commit; all is rolled back."""


def in_transaction(storage: BaseStorage, claim: Claim, call: Callable[[Any], Any]) -> None:
    """Run `call` with a connection in a transaction, and complete the job in it.

    Raises:
        HandlerFailed: The call raised, and is rolled back; or the storage has no such transactions.
        Refused: The job is not held any more; rolled back.
        StorageUnavailable: There was no connection: nothing was started.
    """
    started = False
    try:
        with storage.transaction() as connection:
            started = True
            try:
                outcome = completed(claim, call(connection))
            except (Exception, SystemExit) as error:
                raise HandlerFailed(error) from error
            if not storage.finish([outcome], connection).run():
                raise Refused
    except NotSupported as error:
        raise HandlerFailed(error) from error
    except StorageUnavailable as error:
        if started:  # perhaps by the call: an attempt it was
            raise HandlerFailed(error) from error
        raise


async def ain_transaction(storage: BaseStorage, claim: Claim, call: Callable[[Any], Awaitable[Any]]) -> None:
    """Do the same on an event loop. Raises as `in_transaction` does."""
    started = False
    try:
        async with storage.atransaction() as connection:
            started = True
            try:
                outcome = completed(claim, await call(connection))
            except (Exception, SystemExit) as error:
                raise HandlerFailed(error) from error
            if not await storage.finish([outcome], connection).arun():
                raise Refused
    except NotSupported as error:
        raise HandlerFailed(error) from error
    except StorageUnavailable as error:
        if started:
            raise HandlerFailed(error) from error
        raise
