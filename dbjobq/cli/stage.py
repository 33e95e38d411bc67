"""Common parts of `demo` and `bench`: they need rich, and clear their stage away however they end."""

from __future__ import annotations

import importlib.util
import signal
import sys
from types import FrameType

from dbjobq.errors import ConfigError

__all__ = ["leave_on_sigterm", "require_rich"]


def require_rich(command: str) -> None:
    """Raise ConfigError if rich is not installed; the message names the extra, which is called like the command."""
    if importlib.util.find_spec("rich") is None:
        raise ConfigError(f"dbjobq {command} needs rich: pip install 'dbjobq[{command}]'")


def leave_on_sigterm() -> None:
    """Have SIGTERM raise SystemExit, so that everything that was started is ended; SIGINT does so by itself."""
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
