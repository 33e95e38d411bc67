"""Sends a prepared statement past psycopg's cursor, which would cost more than the rest of `enqueue` (decision 0011).

Only on a connection in autocommit, outside of a transaction. There nothing is broken if the server has forgotten the
prepared statement (`DISCARD ALL`): a cursor sends it again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias
from weakref import WeakKeyDictionary

import psycopg
from psycopg import errors, generators
from psycopg.pq import ExecStatus, PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGresult

__all__ = ["PreparedEnqueue", "numbered"]

_IDLE: Final = TransactionStatus.IDLE
_NO_PIPELINE: Final = PipelineStatus.OFF
_Uses: TypeAlias = int | Literal["prepared", "refused"]
"""How often a connection has sent the statement without preparing it; or that it is prepared there, or cannot be."""
_FORGOTTEN: Final = (errors.InvalidSqlStatementName, errors.FeatureNotSupported)
"""Errors of a prepared statement that is gone, or whose tables have changed so much that it cannot be planned again."""


def numbered(statement: bytes) -> tuple[bytes, list[str]]:
    """Return a statement as libpq takes it (`$1` for `%(name)s`), and the names of its parameters in their order."""
    names = list(dict.fromkeys(re.findall(rb"%\((\w+)\)s", statement)))
    for number, name in enumerate(names, 1):
        statement = statement.replace(b"%%(%s)s" % name, b"$%d" % number)
    return statement, [name.decode() for name in names]


class PreparedEnqueue:
    """One statement of which only the number of rows is wanted.

    Args:
        statement: The statement's text, with parameters that are text, numbers or null.
    """

    def __init__(self, statement: bytes) -> None:
        self._statement, self._names = numbered(statement)
        self._name = b"dbjobq_" + hashlib.sha256(statement).hexdigest()[:16].encode()
        self._uses: WeakKeyDictionary[psycopg.Connection[Any], _Uses] = WeakKeyDictionary()

    def execute(self, connection: psycopg.Connection[Any], params: Mapping[str, Any]) -> int | None:
        """Execute the statement and return the number of rows; None if a cursor must do it: then nothing has happened.

        Raises:
            psycopg.Error: As a cursor raises it.
        """
        threshold = connection.prepare_threshold
        if threshold is None:  # behind a pooler
            return None
        with connection.lock:
            if _is_at_rest(connection) and self._is_prepared(connection, threshold):
                return self._send(connection, params)
        return None

    def _is_prepared(self, connection: psycopg.Connection[Any], threshold: int) -> bool:
        """Tell whether the server has the statement prepared; prepare it after `threshold` uses, as psycopg does."""
        uses = self._uses.get(connection, 0)
        if uses == "prepared":
            return True
        if uses == "refused":
            return False
        self._uses[connection] = uses + 1
        if uses < threshold:
            return False
        connection.pgconn.send_prepare(self._name, self._statement)
        prepared = _answer(connection).status == ExecStatus.COMMAND_OK  # if not, a cursor will say why
        self._uses[connection] = "prepared" if prepared else "refused"
        return prepared

    def _send(self, connection: psycopg.Connection[Any], params: Mapping[str, Any]) -> int | None:
        given = map(params.__getitem__, self._names)
        try:
            values = [None if value is None else str(value).encode("ascii") for value in given]
        except UnicodeEncodeError:  # a cursor knows the connection's encoding
            return None
        connection.pgconn.send_query_prepared(self._name, values)
        answer = _answer(connection)
        if answer.status == ExecStatus.TUPLES_OK:
            return answer.ntuples
        error = errors.error_from_result(answer, connection.info.encoding)
        if not isinstance(error, _FORGOTTEN):
            raise error
        self._uses[connection] = 0
        return None


def _is_at_rest(connection: psycopg.Connection[Any]) -> bool:
    pgconn = connection.pgconn
    return connection.autocommit and pgconn.transaction_status == _IDLE and pgconn.pipeline_status == _NO_PIPELINE


def _answer(connection: psycopg.Connection[Any]) -> PGresult:
    result: PGresult
    (result,) = connection.wait(generators.execute(connection.pgconn))
    return result
