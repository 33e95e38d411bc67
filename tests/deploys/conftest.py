"""Workers of one release or another, and load for them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.deploys.load import Load
from tests.deploys.release import ADDITIVE, INDEX, Release, next_release
from tests.storage.database import database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.support import Process

__all__ = ["Fleet", "database"]

WORKER = ("worker", "tests.support.handlers", "--concurrency=4", "--poll-interval=0.05", "--max-poll-interval=0.5")


class Fleet:
    """Starts workers, which are ended with the test."""

    def __init__(self, folder: Path, dsn: str, stack: ExitStack) -> None:
        self._folder, self._dsn, self._stack = folder, dsn, stack

    def start(self, release: Release, *options: str) -> Process:
        """Start one, and wait until it works."""
        process = self._stack.enter_context(release.run(self._folder, self._dsn, *WORKER, *options))
        process.says("worker.started")
        return process


@pytest.fixture
def fleet(dsn: str, tmp_path: Path) -> Iterator[Fleet]:
    """Starts workers."""
    with ExitStack() as stack:
        yield Fleet(tmp_path, dsn, stack)


@pytest.fixture
def load(dsn: str, tmp_path: Path) -> Load:
    """Producers, not yet at work."""
    return Load(dsn, tmp_path)


@pytest.fixture
def newer(tmp_path: Path) -> Release:
    """The next release: it adds to the tables, and an index."""
    return next_release(tmp_path / "newer", *ADDITIVE, INDEX)
