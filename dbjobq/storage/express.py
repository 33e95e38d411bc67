"""A statement that is sent for every job, past psycopg's cursor, which costs more than all else (docs/decisions/0011).

Only on a connection in autocommit, at rest. There a statement that the server refuses has broken nothing, whether it
has forgotten what was prepared (`DISCARD ALL`) or has another reason: a cursor sends it again, and says why.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

import psycopg
from psycopg import generators
from psycopg.pq import ExecStatus, PipelineStatus, TransactionStatus

__all__ = ["Express", "numbered"]

_IDLE: Final = TransactionStatus.IDLE
_NO_PIPELINE: Final = PipelineStatus.OFF
_NEVER: Final = -(2**62)


def numbered(statement: bytes) -> tuple[bytes, list[str]]:
    """Return a statement as libpq takes it (`$1` for `%(name)s`), and the names of its parameters in their order."""
    names = list(dict.fromkeys(re.findall(rb"%\((\w+)\)s", statement)))
    for number, name in enumerate(names, 1):
        statement = statement.replace(b"%%(%s)s" % name, b"$%d" % number)
    return statement, [name.decode() for name in names]


class Express:
    """One statement, whose rows do not matter.

    Args:
        statement: Its text, with parameters that are text, numbers or null.
    """

    def __init__(self, statement: bytes) -> None:
        self._statement, self._names = numbered(statement)
        self._name = b"dbjobq_" + hashlib.sha256(statement).hexdigest()[:16].encode()
        self._uses: WeakKeyDictionary[psycopg.Connection[Any], int] = WeakKeyDictionary()

    def execute(self, connection: psycopg.Connection[Any], params: Mapping[str, Any]) -> bool:
        """Execute it, if that can be done in this way; return whether it was. If not, nothing has happened."""
        threshold = connection.prepare_threshold
        if threshold is None:  # behind a pooler
            return False
        with connection.lock:
            return (
                _is_at_rest(connection) and self._is_prepared(connection, threshold) and self._send(connection, params)
            )

    def _is_prepared(self, connection: psycopg.Connection[Any], threshold: int) -> bool:
        """Tell whether the server knows it, by now: as with psycopg's own, after so many uses."""
        uses = self._uses.get(connection, 0)
        if uses > threshold:
            return True
        self._uses[connection] = uses + 1
        if uses < threshold:
            return False
        connection.pgconn.send_prepare(self._name, self._statement)
        if _answer(connection) == ExecStatus.COMMAND_OK:
            return True
        self._uses[connection] = _NEVER
        return False

    def _send(self, connection: psycopg.Connection[Any], params: Mapping[str, Any]) -> bool:
        given = map(params.__getitem__, self._names)
        try:
            values = [None if value is None else str(value).encode("ascii") for value in given]
        except UnicodeEncodeError:  # who knows in which encoding the connection is
            return False
        connection.pgconn.send_query_prepared(self._name, values)
        if _answer(connection) == ExecStatus.TUPLES_OK:
            return True
        self._uses[connection] = 0
        return False


def _is_at_rest(connection: psycopg.Connection[Any]) -> bool:
    pgconn = connection.pgconn
    return connection.autocommit and pgconn.transaction_status == _IDLE and pgconn.pipeline_status == _NO_PIPELINE


def _answer(connection: psycopg.Connection[Any]) -> int:
    (result,) = connection.wait(generators.execute(connection.pgconn))
    return int(result.status)
