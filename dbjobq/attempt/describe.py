"""An error as text, as it is stored with its job: what was raised, and where. Never fails, whatever was raised."""

from __future__ import annotations

import traceback
from typing import Final

from dbjobq.codec.json import storable_text
from dbjobq.redact import without_passwords

__all__ = ["MAX_ERROR", "describe", "ending", "message"]

MAX_ERROR: Final = 16_000
"""Characters of a traceback that are kept: its end, where the cause is."""
_OURS: Final = ("dbjobq.attempt.", "dbjobq.queue.", "dbjobq.runtime.")
"""Modules whose frames stand before the function's own in a traceback."""


def describe(error: BaseException) -> str:
    """Return `Type: message` and the traceback, from the function's own frame on."""
    head = message(error)
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(_OURS):
        trace = trace.tb_next
    try:
        lines = "".join(traceback.format_exception(type(error), error, trace))
    except BaseException:
        lines = "(its traceback cannot be shown)"
    return storable_text(f"{head}\n\n{ending(lines)}")


def message(error: BaseException) -> str:
    """Return `Type: message`, without passwords."""
    try:
        said = str(error)
    except BaseException as broken:  # a function's exception may do anything when it is asked
        said = f"(its message raised {type(broken).__name__})"
    return without_passwords(f"{type(error).__name__}: {said}"[: 2 * MAX_ERROR])[:MAX_ERROR]


def ending(text: str) -> str:
    """Return the part of an error's text that is kept, without passwords."""
    return without_passwords(text[-2 * MAX_ERROR :])[-MAX_ERROR:]
