from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.cli.support import all_gone, eventually, invoke, started
from tests.support.faultproxy import proxied

if TYPE_CHECKING:
    from pathlib import Path

    from dbjobq import Job, JobQueue

RUNNING = "worker.started"


def completed(queue: JobQueue, job_id: str) -> Job | None:
    job = queue.get_job(job_id)
    return job if job is not None and job.status == "completed" else None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_jobs_until_a_signal(dsn: str, queue: JobQueue, app: Path, number: int) -> None:
    job_id = queue.enqueue("tasks.add", a=1, b=2)
    with started(app, dsn, "worker", "tasks") as worker:
        job = eventually(lambda: completed(queue, job_id))
        worker.signal(number)
        assert worker.exit_code() == 0, worker.log
    assert job.result == 3


def test_it_says_what_it_does_when_it_starts(dsn: str, app: Path) -> None:
    with started(
        app, dsn, "worker", "tasks", "--log-json", "--queue=a, b", "--queue", "c", "--concurrency=3"
    ) as worker:
        worker.says("worker.serving")
    line = json.loads(worker.log.splitlines()[0])
    assert line["event"] == "worker.serving"
    assert line["tasks"] == ",".join(
        f"tasks.{name}"
        for name in ("add", "apart", "blocks", "complain", "crash", "stuck", "stuck_elsewhere", "takes", "wait_for")
    )
    assert (line["queues"], line["schema"], line["concurrency"]) == ("a,b,c", "dbjobq", 3)
    assert "@" in line["database"]


def test_what_a_job_logs_in_a_process_of_its_own_is_logged_like_all_else(dsn: str, queue: JobQueue, app: Path) -> None:
    job_id = queue.enqueue("tasks.complain")
    with started(app, dsn, "worker", "tasks", "--log-json") as worker:
        worker.says('"caught"')
        worker.signal(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.log
    line = next(json.loads(line) for line in worker.log.splitlines() if '"caught"' in line)
    assert (line["logger"], line["job_id"]) == ("dbjobq.job.tasks.complain", job_id)
    assert line["exception"].endswith("ValueError: complaint")


def test_it_serves_the_queues_that_are_named(dsn: str, queue: JobQueue, app: Path) -> None:
    other = queue.options(queue="other").enqueue("tasks.add", a=1, b=1)
    mine = queue.options(queue="mine").enqueue("tasks.add", a=1, b=1)
    with started(app, dsn, "worker", "tasks", "--queue=mine") as worker:
        eventually(lambda: completed(queue, mine))
        worker.signal(signal.SIGTERM)
        assert worker.exit_code() == 0
    assert not completed(queue, other)


@pytest.mark.parametrize(
    "queues", [["--queue", ""], ["--queue", ","], ["--queue", "mail", "--queue", " , "]], ids=ascii
)
def test_a_queue_that_names_none_is_a_wrong_call_and_not_all_queues(queues: list[str]) -> None:
    result = invoke(None, "worker", "json", *queues)
    assert result.exit_code == 2
    assert "it names no queue" in result.stderr


@pytest.mark.parametrize(
    "option", ["--lease", "--poll-interval", "--max-poll-interval", "--shutdown-timeout", "demo --lease"]
)
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_durations_are_finite_numbers(option: str, value: str) -> None:
    command = option.split() if option.startswith("demo") else ["worker", "json", option]
    result = invoke(None, *command, value)
    assert result.exit_code == 2
    assert f"{value} is no number of seconds" in result.stderr


def test_modules_without_jobs_are_warned_of(dsn: str, tmp_path: Path) -> None:
    with started(tmp_path, dsn, "worker", "json", "tomllib") as worker:
        worker.says("worker.no_job_types modules=json,tomllib")
        worker.signal(signal.SIGTERM)
        assert worker.exit_code() == 0


def test_the_first_signal_lets_the_running_job_finish(dsn: str, queue: JobQueue, app: Path) -> None:
    job_id = queue.enqueue("tasks.wait_for", file="go")
    with started(app, dsn, "worker", "tasks") as worker:
        eventually((app / "running").exists)
        worker.signal(signal.SIGTERM)
        worker.says("worker.stopping")
        (app / "go").touch()
        assert worker.exit_code() == 0
    job = completed(queue, job_id)
    assert job is not None
    assert job.result == "saw it"


def test_the_second_signal_hands_a_stuck_job_back_free_of_charge(dsn: str, queue: JobQueue, app: Path) -> None:
    job_id = queue.enqueue("tasks.stuck")
    with started(app, dsn, "worker", "tasks") as worker:
        eventually((app / "running").exists)
        worker.signal(signal.SIGINT)
        worker.says("worker.stopping")
        worker.signal(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.log
    job = queue.get_job(job_id)
    assert job is not None
    assert (job.status, job.attempts) == ("pending", 0)


def test_a_timeout_hands_back_and_the_process_ends(dsn: str, queue: JobQueue, app: Path) -> None:
    queue.enqueue("tasks.stuck")
    with started(app, dsn, "worker", "tasks", "--shutdown-timeout=0.2") as worker:
        eventually((app / "running").exists)
        worker.signal(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.log
    assert queue.count("pending") == 1


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_job_that_blocks_the_event_loop_is_handed_back_and_the_process_ends(
    dsn: str, queue: JobQueue, app: Path, processes: int
) -> None:
    job_id = queue.enqueue("tasks.blocks")
    args = ("worker", "tasks", "--shutdown-timeout=1", f"--processes={processes}")
    with started(app, dsn, *args) as worker:
        eventually((app / "running").exists)
        worker.signal(signal.SIGTERM)
        assert worker.exit_code(15) == 0, worker.log
        job = queue.get_job(job_id)
        assert job is not None
        assert (job.status, job.attempts) == ("pending", 0)
        assert "job.released" in worker.log
        assert "worker.stop_timeout" in worker.log


def test_a_thread_that_never_ends_does_not_keep_the_process(dsn: str, queue: JobQueue, app: Path) -> None:
    queue.enqueue("tasks.stuck_elsewhere")
    with started(app, dsn, "worker", "tasks") as worker:
        eventually((app / "running").exists)
        worker.signal(signal.SIGTERM)
        worker.says("worker.stopping")
        worker.signal(signal.SIGTERM)
        eventually(lambda: queue.count("pending") == 1)
        worker.signal(signal.SIGTERM)
        assert worker.exit_code() == 0, worker.log


def test_a_signal_during_the_import_ends_it(dsn: str, app: Path) -> None:
    (app / "slow.py").write_text("import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(60)\n")
    with started(app, dsn, "worker", "slow") as worker:
        eventually((app / "importing").exists)
        worker.signal(signal.SIGTERM)
        assert worker.exit_code() == 0
    assert worker.log == ""


def failure(app: Path, dsn: str, *args: str) -> str:
    """What a worker says that cannot start; it must be one line."""
    with started(app, dsn, "worker", *args) as worker:
        assert worker.exit_code() == 1
    (line,) = worker.log.splitlines()
    return line


def test_missing_tables_are_one_line(empty_dsn: str, app: Path) -> None:
    assert "dbjobq migrate" in failure(app, empty_dsn, "tasks")


@pytest.mark.parametrize(("version", "said"), [("9999", "newer"), ("0000", "no release of dbjobq has")])
def test_tables_of_another_version_are_one_line(dsn: str, app: Path, version: str, said: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "update dbjobq.schema_version set version_num = %(to)s, compatible_from = %(to)s", {"to": version}
        )
    assert said in failure(app, dsn, "tasks")


def test_a_module_that_cannot_be_imported_is_one_line(dsn: str, app: Path) -> None:
    assert failure(app, dsn, "tasks", "nowhere").startswith("Error: cannot import 'nowhere'")


def test_it_waits_for_a_server_that_is_away_and_says_so_once(dsn: str, queue: JobQueue, app: Path) -> None:
    job_id = queue.enqueue("tasks.add", a=1, b=2)
    proxy, through = proxied(dsn)
    with proxy:
        proxy.refuse()
        with started(app, through, "worker", "tasks") as worker:
            worker.says("database.unavailable")
            tried = proxy.refused
            eventually(lambda: proxy.refused >= tried + 3)
            proxy.heal()
            eventually(lambda: completed(queue, job_id))
            worker.signal(signal.SIGTERM)
            assert worker.exit_code() == 0, worker.log
    assert worker.log.count("database.unavailable") == 1
    assert "PostgreSQL did not answer" in worker.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_waiting_for_a_server(app: Path, number: int) -> None:
    with started(app, "host=127.0.0.1 port=1", "worker", "tasks") as worker:
        worker.says("database.unavailable")
        worker.signal(number)
        assert worker.exit_code() == 0
    assert len(worker.log.splitlines()) == 1


def test_processes_that_wait_for_a_server_end_with_their_parent(app: Path) -> None:
    with started(app, "host=127.0.0.1 port=1", "worker", "tasks", "--processes=2") as parent:
        parent.says("database.unavailable")
        parent.signal(signal.SIGKILL)
        assert len(parent.pids()) == 1
        all_gone(parent.pids())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dbname": "no_such_database"}, 'database "no_such_database" does not exist'),
        ({"user": "no_such_role"}, "no_such_role"),
    ],
)
def test_what_waiting_would_not_mend_is_one_line(dsn: str, app: Path, changed: dict[str, str], said: str) -> None:
    line = failure(app, make_conninfo(dsn, **changed), "tasks")
    assert line.startswith("Error: PostgreSQL refused the connection")
    assert said in line


def test_a_worker_that_cannot_go_on_ends_with_one_line(dsn: str, app: Path) -> None:
    with started(app, dsn, "worker", "tasks", "--log-level=critical", "--log-json") as worker:
        with psycopg.connect(dsn, autocommit=True) as connection:
            eventually(lambda: connection.execute("select from dbjobq.worker").fetchone() is not None)
            connection.execute("update dbjobq.schema_version set version_num = '9999', compatible_from = '9999'")
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
        assert worker.exit_code() == 1
    assert worker.log.count("\n") == 1, worker.log
    (line,) = worker.log.splitlines()
    assert "newer" in json.loads(line)["error"]


@pytest.mark.parametrize(
    "args", [[], ["tasks", "--concurrency=0"], ["tasks", "--lease=0.5"], ["tasks", "--poll-interval=0"]]
)
def test_a_wrong_call_is_told_apart(args: list[str]) -> None:
    assert invoke(None, "worker", *args).exit_code == 2
