"""The jobs that every system runs, and what they tell the process that measures.

Clocks: `time.monotonic` is the same for all processes of a machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import count
from typing import Any, Final

__all__ = ["EXPECTED", "HANDLERS", "WITNESS"]

WITNESS: Final = "DBJOBQ_COMPARE_WITNESS"
"""The variable that has the number of the file descriptor to which is written."""
EXPECTED: Final = "DBJOBQ_COMPARE_EXPECTED"
"""The variable that says how many `noop` jobs there are: the first and the last are told of."""

_begun = count(1)


def _tell(word: object) -> None:
    os.write(int(os.environ[WITNESS]), f"{word} {time.monotonic()}\n".encode())


_expected = int(os.environ.get(EXPECTED, "0"))


async def noop(number: int, padding: str) -> None:
    """Do nothing."""
    _count()


def noop_def(number: int, padding: str) -> None:
    """Do nothing, where it takes a thread to do it."""
    _count()


def _count() -> None:
    begun = next(_begun)
    if begun == 1:
        _tell("first")
    if begun == _expected:
        _tell("last")


async def stamp(number: int, padding: str) -> None:
    """Tell when this was started."""
    _tell(number)


HANDLERS: Final[dict[str, Callable[..., Any]]] = {it.__name__: it for it in (noop, noop_def, stamp)}
"""By the names that jobs have in every system."""
