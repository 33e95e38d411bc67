from __future__ import annotations

import json
import secrets
import signal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbjobq import JobQueue, PostgresStorage
from dbjobq.bench.meter import Meter, Reading
from dbjobq.bench.report import Report
from dbjobq.bench.run import MEASUREMENTS
from dbjobq.bench.sample import compared, spread
from dbjobq.cli.commands.bench import MEASUREMENT_NAMES, print_report
from dbjobq.cli.output import markdown_table
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.schema import migrate
from tests.cli.support import eventually, invoke, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


TINY = ("--quick", "--rounds=1", "--jobs=300", "--backlog=500")


def schemas(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [name for (name,) in connection.execute("select nspname from pg_namespace where nspname ~ '_bench_'")]


def connections(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        found = connection.execute("select count(*) - 1 from pg_stat_activity where datname = current_database()")
        return int((found.fetchone() or (0,))[0])


def medians(report: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    return {
        name: {way: {key: it["median"] for key, it in found.items()} for way, found in ways.items()}
        for name, ways in report["figures"].items()
    }


@pytest.fixture
def near_dsn() -> Iterator[str]:
    """A server whose processes can be seen: of others each reading takes a second."""
    with EmbeddedPostgres() as server:
        migrate(server.dsn())
        yield server.dsn()


def test_it_measures_everything_and_leaves_nothing(near_dsn: str, tmp_path: Path) -> None:
    dsn, queue = near_dsn, JobQueue(PostgresStorage(near_dsn))
    mine = queue.enqueue("mine.to_keep")
    only = [f"--only={name}" for name in MEASUREMENT_NAMES]
    with started(tmp_path, dsn, "bench", *TINY, *only, "--json") as bench:
        assert bench.exit_code(timeout=200) == 0, bench.log
    report = json.loads(bench.log[bench.log.index("{\n") :])
    assert (report["machine"]["fsync"], report["sizes"]["jobs"]) == ("off", 300)
    found = medians(report)
    assert [*found] == [*MEASUREMENT_NAMES, "life"]
    known = [figures for name in (*MEASUREMENT_NAMES, "life") if name != "idle" for figures in found[name].values()]
    assert all(value > 0 for figures in known for key, value in figures.items() if not key.startswith("server"))
    assert found["drain"]["async def"].keys() == {"per_s", "ratio", "wal_bytes", "server_us", "client_us"}
    assert found["life"]["dbjobq"]["wal_bytes"] > found["life"]["bare SQL"]["wal_bytes"]
    assert found["idle"]["call to start"]["p50_ms"] > found["idle"]["commit to start"]["p50_ms"]
    assert set(found["backlog"]) == {"empty", "ready", "future", "finished", "other queue", "unique keys"}
    assert set(found["gate"]["NOTIFY each"]) == {"per_s", "ratio", "wal_bytes", "server_us", "server_ratio"}
    assert schemas(dsn) == []
    assert queue.stats() == {"pending": 1, "running": 0, "completed": 0, "failed": 0, "cancelled": 0, "total": 1}
    assert queue.get_job(mine)
    queue.storage.close()
    eventually(lambda: connections(dsn) == 0)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 1), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_it_leaves_nothing_when_interrupted(empty_dsn: str, tmp_path: Path, number: int, code: int) -> None:
    with started(tmp_path, empty_dsn, "bench", "--jobs=300", "--backlog=500", "--only=load", "--only=backlog") as bench:
        bench.says("to warm up")
        bench.signal(number)
        assert bench.exit_code() == code, bench.log
    assert schemas(empty_dsn) == []
    eventually(lambda: connections(empty_dsn) == 0)


def test_its_tables_are_for_people_or_for_a_document(empty_dsn: str, tmp_path: Path) -> None:
    for words, row in (((), "other queue  "), (("--markdown",), "| other queue | ")):
        with started(tmp_path, empty_dsn, "bench", *TINY, "--only=backlog", *words) as bench:
            assert bench.exit_code() == 0, bench.log
        assert row in bench.log
        assert "backlog: a claim of 10 jobs" in bench.log


@pytest.mark.parametrize(
    "words", ["--only=nothing", "--rounds=0", "--jobs=x", "--backlog=0", "--data-bytes=-1", "--concurrency=0", "more"]
)
def test_bad_options_are_refused(words: str) -> None:
    assert invoke(None, "bench", *words.split()).exit_code == 2


@pytest.fixture
def guest_dsn(empty_dsn: str) -> Iterator[str]:
    """A database that leads in as a role which may make no schema."""
    name = f"bench_guest_{secrets.token_hex(4)}"
    role = sql.Identifier(name)
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create role {} login password 'guest'").format(role))
        yield make_conninfo(empty_dsn, user=name, password="guest")
        connection.execute(sql.SQL("drop role {}").format(role))


def test_no_right_to_make_a_schema_is_one_line(guest_dsn: str) -> None:
    result = invoke(guest_dsn, "bench", *TINY)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: the database user may not do this in schema 'dbjobq_bench_")
    assert result.stderr.count("\n") == 1


def test_the_command_knows_all_measurements() -> None:
    assert list(MEASUREMENT_NAMES) == list(MEASUREMENTS)


def test_where_the_servers_processes_cannot_be_seen_its_active_time_is_read(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbjobq.bench.meter._postmaster", lambda _connection: None)  # pyright: ignore[reportUnknownLambdaType,reportUnknownArgumentType]
    with psycopg.connect(dsn, autocommit=True) as probe, psycopg.connect(dsn, autocommit=True) as worked:

        def work() -> None:
            worked.execute("select count(*) from dbjobq.job, pg_sleep(0.02)")

        meter = Meter(probe)
        before = meter.read(work)
        work()
        after = meter.read(work)
    assert meter.clock == "active"
    assert after.per_job(before, 1)["server_us"] > 20_000


def test_readings_are_told_for_each_job() -> None:
    spent = Reading(3_000, 2.0).per_job(Reading(1_000, 1.0), 1_000)
    assert spent == {"wal_bytes": 2.0, "server_us": 1_000.0}


def test_a_report_has_medians_of_rounds_and_of_their_ratios() -> None:
    rounds = [
        compared({"ours": {"per_s": ours}, "bare": {"per_s": bare}}, "bare")
        for ours, bare in ((10, 20), (30, 30), (40, 400))
    ]
    report = Report(machine={}, sizes={}, titles={"drain": "drain"}, samples={"drain": rounds})
    assert report.as_json()["figures"]["drain"]["ours"]["ratio"] == {
        "median": 0.5,
        "min": 0.1,
        "max": 1.0,
        "rounds": [0.5, 1.0, 0.1],
    }
    ((_, header, rows),) = report.tables()
    assert header == ["", "jobs/s", "ratio"]
    assert rows == [["ours", "30 (10-40)", "0.50 (0.10-1.00)"], ["bare", "30 (20-400)", ""]]


def test_a_spread_is_in_milliseconds() -> None:
    assert spread([n / 1000 for n in range(1, 101)]) == {"p50_ms": 50.0, "p95_ms": 95.0, "p99_ms": 99.0}


def test_a_table_in_markdown_has_its_numbers_to_the_right() -> None:
    assert markdown_table(["", "n"], [["a", 1]]) == "|  | n |\n| --- | ---: |\n| a | 1 |"


def test_its_tables_fit_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"per_s": 123456.0, "p50_ms": 1.0, "p99_ms": 100.0, "wal_bytes": 919.0, "server_us": 10.0}
    sample = compared({"enqueued one at a time": figures, "a bare INSERT": figures}, "a bare INSERT")
    report = Report(
        machine={"server": "PostgreSQL", "server time": "word " * 30},
        sizes={},
        titles={"enqueue": "title " * 30},
        samples={"enqueue": [sample, sample]},
    )
    print_report(report, markdown=False, columns=80)
    narrow = capsys.readouterr().out
    print_report(report, markdown=False)
    whole = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 80 < max(map(len, whole.splitlines()))
    assert "123,456 (123,456-123,456)" in narrow
    assert {*whole.split()} == {*narrow.split()}
