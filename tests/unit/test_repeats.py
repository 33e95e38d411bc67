"""When a call that failed is made again: decided without a connection, the same for threads and event loops."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors as pg
from psycopg_pool import PoolTimeout

from dbjobq.errors import StorageUnavailable
from dbjobq.storage.postgres.connect.deadline import Deadline
from dbjobq.storage.postgres.repeats import (
    CHANGES,
    LAST_TRY,
    LONGEST_AWAY_PAUSE,
    SHORTEST_AWAY_PAUSE,
    TRIES,
    Outdated,
    Repeats,
)

LOST = psycopg.OperationalError("server closed the connection unexpectedly")
CONFLICT = pg.SerializationFailure("could not serialize access")
AWAY = pg.CannotConnectNow("the database system is starting up")
BROKEN = pg.UndefinedTable("relation does not exist")
ADVICE = "Look, or make it again"


def repeats(seconds: float | None = 60.0, *, may: bool = True, unsure: str = ADVICE, callers: bool = False) -> Repeats:
    return Repeats(None if seconds is None else Deadline(seconds), lambda: may, unsure=unsure, callers=callers)


@pytest.mark.parametrize("seconds", [60.0, None])
@pytest.mark.parametrize(("error", "again"), [(LOST, True), (CONFLICT, False)])
def test_what_may_do_better_is_tried_again_at_once_a_few_times(
    seconds: float | None, error: psycopg.Error, again: bool
) -> None:
    tries = repeats(seconds)
    for _ in range(TRIES - 1):
        assert tries.after(error) == 0.0
        assert tries.again is again  # after a lost connection, as if it had happened
    with pytest.raises(type(error)) as raised:
        tries.after(error)
    assert raised.value is error


@pytest.mark.parametrize("error", [LOST, CONFLICT, AWAY])
def test_what_must_not_be_made_again_raises_its_first_error(error: psycopg.Error) -> None:
    with pytest.raises(type(error)):
        repeats(may=False).after(error)


def test_what_no_other_try_could_mend_is_raised() -> None:
    with pytest.raises(pg.UndefinedTable):
        repeats().after(BROKEN)


@pytest.mark.parametrize("error", [LOST, CONFLICT, AWAY, BROKEN])
def test_in_a_callers_transaction_nothing_is_repeated(error: psycopg.Error) -> None:
    with pytest.raises(type(error)) as raised:
        repeats(0.0, callers=True).after(error)
    assert raised.value is error


def test_while_something_answers_that_the_server_is_away_pauses_grow_and_tries_do_not_count() -> None:
    tries = repeats(1000.0)
    pauses = [tries.after(AWAY) for _ in range(20)]
    assert pauses[:3] == [SHORTEST_AWAY_PAUSE, SHORTEST_AWAY_PAUSE * 2, SHORTEST_AWAY_PAUSE * 4]
    assert max(pauses) == pauses[-1] == LONGEST_AWAY_PAUSE
    assert tries.again


def test_the_last_of_those_tries_keeps_some_time_and_there_is_none_without() -> None:
    deadline = Deadline(LAST_TRY * 4)
    tries = Repeats(deadline, lambda: True, unsure=ADVICE)
    deadline.at -= LAST_TRY * 3 - SHORTEST_AWAY_PAUSE / 2  # the last try's time is left, and half of a pause
    assert 0.0 < tries.after(AWAY) <= SHORTEST_AWAY_PAUSE / 2
    deadline.at -= SHORTEST_AWAY_PAUSE / 2
    with pytest.raises(StorageUnavailable, match=r"starting up. Nothing was stored"):
        tries.after(AWAY)


@pytest.mark.parametrize(
    ("before", "error", "said"),
    [
        (None, PoolTimeout("all are in use"), r"no connection within 0 s: all the pool may have .* Nothing was stored"),
        (None, LOST, f"did not answer within 0 s: the call may have happened, or not. {ADVICE}"),
        (None, AWAY, r"no connection within 0 s: PostgreSQL answered: .*starting up. Nothing was stored"),
        (LOST, AWAY, "starting up, and nothing else within 0 s: the call may have happened, or not"),
        (LOST, PoolTimeout("all are in use"), "did not answer within 0 s: the call may have happened, or not"),
    ],
)
def test_whoever_is_out_of_time_is_told_whether_it_may_have_happened(
    before: psycopg.Error | None, error: psycopg.Error, said: str
) -> None:
    deadline = Deadline(0.0)
    tries = Repeats(deadline, lambda: True, unsure=ADVICE)
    if before is not None:
        deadline.at += 60.0
        tries.after(before)
        deadline.at -= 60.0
    with pytest.raises(StorageUnavailable, match=said):
        tries.after(error)


def test_a_call_that_only_looks_says_nothing_of_what_was_stored() -> None:
    with pytest.raises(StorageUnavailable) as raised:
        repeats(0.0, unsure="").after(PoolTimeout("all are in use"))
    assert "stored" not in str(raised.value)


@pytest.mark.parametrize("callers", [False, True])
def test_what_is_outdated_is_learned_anew_a_few_times(callers: bool) -> None:
    tries = repeats(callers=callers)
    for _ in range(CHANGES - 1):
        assert tries.after(Outdated()) == 0.0
        assert tries.anew
    with pytest.raises(StorageUnavailable, match="change faster than they can be learned"):
        tries.after(Outdated())


def test_what_was_learned_is_not_learned_anew_for_a_connection_that_was_lost_since() -> None:
    tries = repeats()
    tries.after(Outdated())
    tries.after(LOST)
    assert (tries.anew, tries.again) == (False, True)
    tries.after(Outdated())
    assert (tries.anew, tries.again) == (True, True)  # it may have happened all the same
