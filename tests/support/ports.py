"""Ports for servers that are stopped and started again."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from typing import Final

__all__ = ["free_port"]

QUIET: Final = range(20_000, 32_000)
"""Linux gives outgoing connections ports from 32768 on: none of these is taken while its server is away."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody has."""
    while True:
        port = random.choice(QUIET)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
