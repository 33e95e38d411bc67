"""Old and new release side by side, through a migration, under load."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

import pytest

from dbjobq import schema
from dbjobq.storage.postgres.schema_version import HEAD
from tests.deploys.release import BREAKING, Release, last_tag, next_release, released
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.deploys.conftest import Fleet
    from tests.deploys.load import Load
    from tests.storage.database import Database

pytestmark = pytest.mark.slow

TAG: Final = last_tag()


@pytest.fixture(params=["this", *[TAG] * (TAG is not None)])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Release:
    """An old release: this one, as the next will find it, and the last that has a tag."""
    return Release() if request.param == "this" else released(request.param, tmp_path / "old")


def test_an_additive_migration_under_load_is_noticed_by_nobody(
    dsn: str, tmp_path: Path, fleet: Fleet, load: Load, *, old: Release, newer: Release
) -> None:
    olds = [fleet.start(old) for _ in range(2)]
    with load:
        until(load.more(50))
        code, said = newer.says(tmp_path, dsn, "worker", "tests.support.handlers")
        assert (code, len(said.splitlines())) == (1, 1)
        assert f"at migration {HEAD}, older than this library's {newer.head}: run `dbjobq migrate`" in said

        code, said = newer.says(tmp_path, dsn, "migrate")
        assert (code, said.splitlines()[-1].split()[-1]) == (0, newer.head), said

        news = [fleet.start(newer), fleet.start(old)]  # a deploy that goes on, and one that is taken back
        until(lambda: {note.pid for note in load.diary("end")} >= {worker.popen.pid for worker in [*olds, *news]})
        assert [worker.popen.poll() for worker in olds] == [None, None]
        for worker in olds:
            worker.signal(signal.SIGTERM)
            assert worker.exit_code() == 0, worker.log
            assert "WARNING" not in worker.log
        until(load.more(50))
    load.worked_off()


def test_a_breaking_migration_stops_old_workers_with_one_line_and_loses_nothing(
    dsn: str, tmp_path: Path, fleet: Fleet, *, database: Database, old: Release
) -> None:
    breaking = next_release(tmp_path / "breaking", BREAKING)
    running = fleet.start(old)
    assert breaking.says(tmp_path, dsn, "migrate")[0] == 0
    for _ in range(10):
        database.rows(
            "insert into dbjobq.ready (position, queue, priority, job_id) values (1, 1, 5, gen_random_uuid())"
        )
    assert running.exit_code() == 1
    assert "run `dbjobq migrate`" in running.log.splitlines()[-1]

    code, said = old.says(tmp_path, dsn, "worker", "tests.support.handlers")
    assert (code, len(said.splitlines())) == (1, 1)
    needs = (
        f"newer than this library's {old.head}, and needs a library of {breaking.head} or later: upgrade dbjobq here"
    )
    assert f"at migration {breaking.head}, {needs}" in said

    assert database.value("select count(*) from dbjobq.ready") == 10
    assert breaking.says(tmp_path, dsn, "migrate", f"--to={HEAD}", "--yes")[0] == 0
    assert schema.check(dsn) == HEAD
