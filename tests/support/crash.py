"""A crash of a server of one's own. What it has flushed survives: the kernel keeps what was written."""

from __future__ import annotations

import os
import signal

import psycopg

from tests.support.waiting import until

__all__ = ["crash"]


def crash(dsn: str) -> None:
    """Have the server end all its backends at once and recover, as after `pg_ctl -m immediate restart`."""
    with psycopg.connect(dsn) as victim, psycopg.connect(dsn) as witness:
        os.kill(victim.info.backend_pid, signal.SIGKILL)
        until(lambda: _ended(witness))  # the victim's own end comes before the server has noticed
    until(lambda: _answers(dsn), what="the server's recovery")


def _ended(connection: psycopg.Connection) -> bool:
    try:
        connection.execute("select 1")
    except psycopg.OperationalError:
        return True
    return False


def _answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return False
    return True
