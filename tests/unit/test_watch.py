"""Whether a loop is blocked, seen from a thread that may itself have stood still."""

from __future__ import annotations

import asyncio
import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest

from dbjobq.runtime.liveness.loop_watch import BLOCKED, Watch

NOTHING: Any = SimpleNamespace(
    whereabouts=list, take_back=list, unwritten=list, processes=SimpleNamespace(kill=list), cut_off=list, lost=list
)
"""An executor at rest."""


def watching() -> Watch:
    return Watch(NOTHING, stop_by=lambda: None, unsent=list, stuck_after=float("inf"), replace=lambda: False)


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_process_that_stood_still_is_not_called_blocked_by_whoever_wakes_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "dbjobq")

    async def main() -> None:
        watch = watching()
        watch.look(0.0)
        time.sleep(BLOCKED + 0.2)  # noqa: ASYNC251 - all stands still, this thread and the loop
        watch.look(BLOCKED + 0.1)
        await asyncio.sleep(0)
        watch.look(0.0)

    asyncio.run(main())
    assert events(caplog) == ["process.stalled"]


def test_a_loop_that_does_not_come_round_between_two_looks_is_blocked_until_it_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "dbjobq")

    async def main() -> None:
        watch = watching()
        for _ in range(5):
            watch.look(0.0)
            time.sleep(BLOCKED / 2)  # noqa: ASYNC251 - the loop's turn does not come
        await asyncio.sleep(0)
        watch.look(0.0)
        watch.look(0.0)

    asyncio.run(main())
    assert events(caplog) == ["loop.blocked", "loop.unblocked"]
