"""Whether a loop is blocked, seen from a thread that may itself have stood still."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest

from dbjobq.runtime.liveness.loop_watch import BLOCKED
from dbjobq.runtime.liveness.stand_in import StandIn
from dbjobq.runtime.liveness.states import Fate
from dbjobq.runtime.loop import LoopCalls

AT_REST: Any = SimpleNamespace(
    executor=SimpleNamespace(slots=SimpleNamespace(whereabouts=list), buffer=SimpleNamespace(take_back=list)),
    ended=dict,
    stop_by=lambda: None,
)
"""A worker that holds nothing."""


class Looking(StandIn):
    """Looks when a test says so, instead of a thread."""

    def __init__(self) -> None:
        settings: Any = {"lease": 30.0, "stuck_after": float("inf"), "replace": lambda: False}
        unused: Any = None
        super().__init__(unused, AT_REST, Fate(lambda: None), LoopCalls(), **settings)
        self._pause()

    def look(self) -> None:
        """Look, and begin the pause until the next look."""
        self._work()
        self._pause()


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_process_that_stood_still_is_not_called_blocked_by_whoever_wakes_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "dbjobq")

    async def main() -> None:
        watch = Looking()
        watch.look()
        time.sleep(BLOCKED + 0.7)  # noqa: ASYNC251 - all stands still, this thread and the loop
        watch.look()
        await asyncio.sleep(0)
        watch.look()

    asyncio.run(main())
    assert events(caplog) == ["process.stalled"]


def test_a_loop_that_does_not_come_round_between_two_looks_is_blocked_until_it_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "dbjobq")

    async def main() -> None:
        watch = Looking()
        for _ in range(5):
            watch.look()
            time.sleep(BLOCKED / 2)  # noqa: ASYNC251 - the loop's turn does not come
        await asyncio.sleep(0)
        watch.look()
        watch.look()

    asyncio.run(main())
    said = [event for event in events(caplog) if event != "process.stalled"]  # a busy machine sleeps longer
    assert said == ["loop.blocked", "loop.unblocked"]
