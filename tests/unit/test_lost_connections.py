"""Which of psycopg's errors mean that a fresh connection may do better."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors as pg

from dbjobq.errors import StorageUnavailable
from dbjobq.storage.postgres.connect.errors import is_lost, translate


@pytest.mark.parametrize(
    "error",
    [
        pg.AdminShutdown("terminating connection"),
        psycopg.OperationalError("server closed the connection unexpectedly"),
        pg.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"),  # a primary no more
        pg.IdleInTransactionSessionTimeout("terminating connection due to idle-in-transaction timeout"),
        psycopg.InternalError("received 2 results from command 'BEGIN'"),  # a backend's last words, and the end
    ],
)
def test_a_connection_that_ended_is_lost(error: psycopg.Error) -> None:
    assert is_lost(error)
    assert isinstance(translate(error, "dbjobq"), StorageUnavailable)


@pytest.mark.parametrize(
    "error",
    [
        pg.InternalError_("cache lookup failed"),
        pg.IndexCorrupted("index contains unexpected zero page"),
        pg.ObjectNotInPrerequisiteState("cannot delete from table: it does not have a replica identity"),
    ],
)
def test_an_error_inside_the_server_loses_no_connection_and_is_told_as_its_answer(error: psycopg.Error) -> None:
    assert not is_lost(error)
    ours = translate(error, "dbjobq")
    assert isinstance(ours, StorageUnavailable)
    assert (str(ours), ours.answered) == (f"PostgreSQL answered: {error}", True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (pg.DiskFull("could not extend file: No space left on device"), "answered"),
        (pg.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"), "answered"),
        (psycopg.OperationalError('server at "db" failed: FATAL:  sorry, too many clients already'), "answered"),
        (psycopg.OperationalError("server failed: ВАЖНО:  система баз данных запускается"), "answered"),
        (pg.AdminShutdown("terminating connection due to administrator command"), "ended the connection"),
        (pg.IdleSessionTimeout("terminating connection due to idle-session timeout"), "ended the connection"),
        (
            psycopg.OperationalError('server at "db" failed: Connection refused'),
            "did not answer",
        ),
        (psycopg.OperationalError("server closed the connection unexpectedly"), "did not answer"),
    ],
)
def test_what_is_told_is_whether_the_server_answered(error: psycopg.Error, said: str) -> None:
    ours = translate(error, "dbjobq")
    assert isinstance(ours, StorageUnavailable)
    assert str(ours) == f"PostgreSQL {said}: {error}"
    assert ours.answered == (said == "answered")
