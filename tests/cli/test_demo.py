from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from dbjobq.demo import stage
from dbjobq.demo.files import text_files
from dbjobq.demo.jobs import Facts, facts_of
from dbjobq.demo.report import Kill, Report
from dbjobq.demo.totals import total
from dbjobq.rig.percentile import percentile
from tests.cli.support import eventually, started

if TYPE_CHECKING:
    from dbjobq.demo.totals import Totals

FILES = 1500  # so many that a busy machine finds some left to be killed with


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of real modules, many times."""
    source = Path(stage.__file__).read_text()
    for number in range(FILES):
        file = tmp_path / "tree" / str(number % 7) / f"module_{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"number = {number}\n{source * 4}")
    return tmp_path / "tree"


def schemas(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [
            name for (name,) in connection.execute("select nspname from pg_namespace where nspname like 'dbjobq_demo%'")
        ]


def connections(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        found = connection.execute("select count(*) - 1 from pg_stat_activity where datname = current_database()")
        return int((found.fetchone() or (0,))[0])


@pytest.mark.slow
def test_it_loses_no_job_and_leaves_nothing(empty_dsn: str, tree: Path) -> None:
    args = ("demo", str(tree), "--json", "--lease=2", "--pings=10")
    with started(tree.parent, empty_dsn, *args) as demo:
        assert demo.exit_code() == 0, demo.log
    report = json.loads(demo.log[demo.log.index("{\n") :])
    assert report["ok"] is True
    assert report["by_queue"] == report["without_queue"]
    assert (report["by_queue"]["files"], report["lost"]) == (FILES, 0)
    assert report["attempts_charged"] >= report["kill"]["held"] > 0
    assert 0 < report["pickup_p50_ms"] <= report["pickup_p99_ms"]
    assert schemas(empty_dsn) == []
    eventually(lambda: connections(empty_dsn) == 0)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 1), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_it_leaves_nothing_when_interrupted(empty_dsn: str, tree: Path, number: int, code: int) -> None:
    with started(tree.parent, empty_dsn, "demo", str(tree)) as demo:
        demo.says("jobs enqueued")
        demo.signal(number)
        assert demo.exit_code() == code, demo.log
    assert schemas(empty_dsn) == []
    eventually(lambda: connections(empty_dsn) == 0)


def test_its_workers_end_when_it_is_killed(empty_dsn: str, tree: Path) -> None:
    with started(tree.parent, empty_dsn, "demo", str(tree)) as demo:
        demo.says("jobs enqueued")
        demo.signal(signal.SIGKILL)
        eventually(lambda: connections(empty_dsn) == 0)


def test_a_tree_without_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with started(tmp_path, "", "demo", "empty") as demo:
        assert demo.exit_code() == 1
    assert demo.log.startswith("Error: there are no text files below")


def test_text_files_are_found_in_order(tmp_path: Path) -> None:
    for name in ("b/2.py", "a.txt", "b/1.py", "__pycache__/x.py", ".hidden/y.py", ".z.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "binary").write_bytes(b"a\0b")
    (tmp_path / "link").symlink_to(tmp_path / "a.txt")
    assert [path.relative_to(tmp_path).as_posix() for path in text_files(tmp_path)] == ["a.txt", "b/1.py", "b/2.py"]


def totals(tmp_path: Path, *contents: str) -> Totals:
    facts: list[tuple[str, Facts]] = []
    for number, content in enumerate(contents):
        file = tmp_path / str(number)
        file.write_text(content)
        facts.append((str(number), facts_of(file)))
    assert total(facts) == total(reversed(facts))
    return total(facts)


def test_totals_count_what_is_in_the_files(tmp_path: Path) -> None:
    found = totals(tmp_path, "def one(): return two\n", "two = one + one\n")
    assert (found.files, found.size_bytes, found.lines, found.words) == (2, 38, 2, 9)
    assert found.most_used == (("one", 3), ("two", 2))


def test_totals_tell_files_apart_that_count_the_same(tmp_path: Path) -> None:
    assert totals(tmp_path, "one two", "a").digest != totals(tmp_path, "one twa", "a").digest


def test_the_report_fails_if_a_total_differs_or_a_job_is_lost(tmp_path: Path) -> None:
    same = totals(tmp_path, "one two")
    report = Report(
        server="",
        workers=2,
        by_queue=same,
        without_queue=same,
        lost=0,
        seconds=1,
        plain_seconds=1,
        jobs_per_second=1,
        kill=Kill(1, 1, 1.0),
        attempts_charged=1,
        begun_twice=1,
        ended_twice=0,
        latencies=[0.001],
    )
    assert [*report.lines()][-1].startswith("OK")
    many = replace(report, seconds=12345.6, begun_twice=1000, ended_twice=1000, kill=Kill(4194304, 1000, 100.0))
    for told in (report, many):
        assert max(map(len, told.lines())) <= 80
    text = " ".join(" ".join(many.lines()).split())
    assert "a job runs at least once" in text
    assert "plain loop" not in text
    assert "the killed worker held 1000 jobs; others ran them" in text
    for bad in (replace(report, lost=1), replace(report, by_queue=same._replace(words=3))):
        assert not bad.ok
        assert [*bad.lines()][-1].startswith("FAILED")
    assert any("DIFFERS" in line for line in replace(report, by_queue=same._replace(words=3)).lines())


def test_percentiles_are_of_the_values_there_are() -> None:
    values = [n / 100 for n in range(100, 0, -1)]
    assert [percentile(values, part) for part in (50, 99, 100)] == [0.5, 0.99, 1.0]
    assert percentile([], 50) == 0


def test_runs_counts_what_the_workers_noted(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("begun a\nended a\nbegun b\n")
    (tmp_path / "2").write_text("begun b\nended b\nbegun a\nended a\nbegun c")
    assert stage.Runs(tmp_path).twice() == (2, 1)
