"""Workers without a runtime: their sessions, used step by step."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from dbjobq.storage.values import Answer, Claim, Exchange, Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Sequence

    from dbjobq import BaseStorage
    from dbjobq.models import Event
    from dbjobq.storage.values import Rescued
    from dbjobq.storage.worker_port import Session

BEAT = 30.0


@asynccontextmanager
async def worker(
    storage: BaseStorage, name: str = "w1", queues: Sequence[str] | None = None
) -> AsyncGenerator[Session]:
    """An open session; closed without giving anything back."""
    session = storage.session(name, queues, BEAT)
    await session.open()
    try:
        yield session
    finally:
        await session.close()


async def exchange(
    session: Session, outcomes: Sequence[Outcome] = (), want: int = 0, *, promote: bool = False, rush: bool = False
) -> Answer:
    return await session.step(Exchange(list(outcomes), want, BEAT, promote=promote, rush=rush))


async def claim(session: Session, want: int = 10, *, promote: bool = True, rush: bool = False) -> list[Claim]:
    """Claim, in as many exchanges as a slow machine needs to make ready what is due: none claims before that."""
    while True:
        answer = await exchange(session, want=want, promote=promote, rush=rush)
        if answer.claims or answer.next_due != 0:
            return answer.claims


def ended(claim: Claim, event: Event = "complete", **more: Any) -> Outcome:
    if event in {"retry", "fail"}:
        more.setdefault("error", f"{event} of {claim.claim}")
    return Outcome(claim, event, **more)


def rescue(storage: BaseStorage) -> list[Rescued]:
    pulse = storage.session("rescuer", None, BEAT).pulse()
    try:
        return pulse.rescue()
    finally:
        pulse.close()


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))
