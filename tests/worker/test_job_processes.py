"""Jobs in processes of their own: what happens there costs the job, and neither the worker nor its neighbours."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbjobq import JobQueue, PostgresStorage, job
from dbjobq.runtime.processes import pool as pool_module
from dbjobq.runtime.processes import process as process_module
from tests.support import apart
from tests.support.faultproxy import proxied
from tests.support.looking import error_of, get, result_of
from tests.support.process import runs
from tests.support.waiting import ended, failed_once, lasting, until
from tests.worker.conftest import Events, Processes, Start, use_loop

everywhere = pytest.mark.every_storage(usually="postgres")


@pytest.fixture(params=["uvloop", pytest.param("asyncio", marks=pytest.mark.slow)])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of event loop: to start a process takes long, so usually the one that is used where it is installed."""
    return use_loop(request.param, monkeypatch)


def gone(pid: int) -> None:
    until(lambda: not runs(pid), what=f"the end of process {pid}")


def noted(file: Path, timeout: float = 60.0) -> list[int]:
    """Wait for a job's note; return its process, and other numbers that it wrote."""
    until(file.exists, timeout, f"the note {file.name}")
    return [int(word) for word in file.read_text().split()]


def result(queue: JobQueue, job_id: str, timeout: float = 60.0) -> Any:
    return result_of(queue, job_id, timeout)  # a process has to start


def error(queue: JobQueue, job_id: str) -> str:
    ended(queue, [job_id], "failed", timeout=60)
    return error_of(queue, job_id)


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[Callable[[], set[int]]]:
    """The processes that this one has started; when the test has stopped its workers, none is left."""
    children = Path(f"/proc/{os.getpid()}/task")

    def is_ours(pid: int) -> bool:
        with suppress(FileNotFoundError, ProcessLookupError):
            return b"runtime.processes.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False

    def there() -> set[int]:
        pids: set[int] = set()
        for thread in children.iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                pids |= set(map(int, (thread / "children").read_text().split()))
        return {pid for pid in pids if runs(pid) and is_ours(pid)}

    yield there
    assert there() == set()


# Where it runs.


@pytest.mark.every_storage
def test_def_and_async_def_run_in_another_process_which_is_kept_for_the_next(start: Start, queue: JobQueue) -> None:
    worker = start()
    ids = [queue.enqueue(kind) for kind in (apart.pid, apart.apid, apart.pid, apart.inline_pid)]
    pids = [result(queue, job_id) for job_id in ids]
    assert len(set(pids[:3])) == 1
    assert pids[0] != os.getpid() == pids[3]
    worker.stop()
    assert not runs(pids[0])


def test_two_at_once_have_two_processes(start: Start, queue: JobQueue, tmp_path: Path) -> None:
    start(concurrency=3)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    ids = [queue.enqueue(apart.meet, mine=a, other=b), queue.enqueue(apart.meet, mine=b, other=a)]
    assert len({result(queue, job_id) for job_id in ids}) == 2


def test_a_process_with_nothing_to_do_ends_after_a_while_and_another_takes_its_place(
    start: Start, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "IDLE", 0.2)
    start()
    first = result(queue, queue.enqueue(apart.pid))
    gone(first)
    assert result(queue, queue.enqueue(apart.pid)) != first


def test_one_that_dies_with_nothing_to_do_is_replaced(start: Start, queue: JobQueue, events: Events) -> None:
    start()
    first = result(queue, queue.enqueue(apart.pid))
    os.kill(first, signal.SIGKILL)
    until(lambda: events.of("job.process_died"))
    again = queue.enqueue(apart.pid)
    assert result(queue, again) != first
    assert get(queue, again).attempts == 0


def test_execute_job_runs_it_here_and_now(queue: JobQueue) -> None:
    job_id = queue.enqueue(apart.pid)
    claimed = queue.dequeue()
    assert claimed is not None
    queue.execute_job(claimed)
    assert get(queue, job_id).result == os.getpid()


# How it dies.


USUAL = {"segmentation fault", "os._exit", "closes everything"}


@pytest.mark.parametrize(
    "how", [how if how in USUAL else pytest.param(how, marks=pytest.mark.slow) for how in apart.DEATHS]
)
def test_a_process_that_dies_costs_its_job_an_attempt_and_nobody_else_anything(
    start: Start, queue: JobQueue, how: str, loop: str
) -> None:
    worker = start(concurrency=2)
    job_id = queue.enqueue(apart.die_once, how=how)
    neighbours = [queue.enqueue(kind) for kind in (apart.pid, apart.inline_pid) for _ in range(5)]
    said = error(queue, job_id)
    assert said.startswith(f"ProcessDied: the process of this job {apart.DEATHS[how][1]}"), said
    assert get(queue, job_id).attempts == 1
    ended(queue, neighbours)
    assert {get(queue, job_id).attempts for job_id in neighbours} == {0}
    assert worker._worker_thread.is_alive()


@everywhere
def test_a_job_that_kills_its_process_every_time_fails_in_the_end_and_its_neighbours_do_not(
    start: Start, queue: JobQueue
) -> None:
    start(concurrency=2)
    job_id = queue.enqueue(apart.die, how="segmentation fault", max_retries=2)
    neighbours = [queue.enqueue(apart.pid) for _ in range(10)]
    assert "the process of this job was killed by SIGSEGV" in error(queue, job_id)
    assert get(queue, job_id).attempts == 3
    ended(queue, neighbours)
    assert {get(queue, job_id).attempts for job_id in neighbours} == {0}


def test_a_death_is_noticed_though_a_fork_of_the_process_lives_and_ends_that_too(
    start: Start, queue: JobQueue, tmp_path: Path
) -> None:
    start()
    job_id = queue.enqueue(apart.die_with_a_fork_that_lives, file=str(tmp_path / "note"), max_retries=0)
    assert "ended with exit code 4" in error(queue, job_id)
    gone(noted(tmp_path / "note")[1])


def test_where_no_process_can_be_started_the_attempt_fails_and_says_why(
    start: Start, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    start()
    job_id = queue.enqueue(apart.die, how="os._exit", max_retries=2)
    assert error(queue, job_id).startswith("FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/python'")
    assert get(queue, job_id).attempts == 3
    monkeypatch.undo()
    result(queue, queue.enqueue(apart.pid))


# How it is ended.


@everywhere
def test_a_job_that_holds_the_gil_past_its_timeout_is_killed_and_fails_with_that(
    start: Start, queue: JobQueue, tmp_path: Path, loop: str
) -> None:
    start()
    job_id = queue.enqueue(apart.compute_too_long, file=str(tmp_path / "note"))
    assert error(queue, job_id).startswith("TimeoutError: the attempt took longer than its timeout of 0.5 s")
    assert not runs(noted(tmp_path / "note")[0])  # already when it is said
    assert get(queue, job_id).attempts == 1
    result(queue, queue.enqueue(apart.pid))


def test_a_timeout_counts_from_the_call_and_not_from_the_start_of_a_process(
    start: Start, queue: JobQueue, tmp_path: Path
) -> None:
    start()
    job_id = queue.options(timeout=0.05).enqueue(apart.pid)  # less than an interpreter takes to start
    assert result(queue, job_id) > 0


def test_a_process_that_is_not_ready_in_time_is_killed(
    start: Start, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "START", 0.01)
    start()
    said = error(queue, queue.enqueue(apart.pid, max_retries=0))
    assert said.startswith("TimeoutError: the process of this job was not ready within 0.01 s")


def test_a_coroutine_is_cancelled_at_its_timeout_and_its_process_goes_on(
    start: Start, queue: JobQueue, tmp_path: Path
) -> None:
    start()
    job_id = queue.enqueue(apart.wait_too_long, file=str(tmp_path / "note"))
    assert "longer than its timeout" in error(queue, job_id)
    assert (tmp_path / "note.told").exists()
    assert result(queue, queue.enqueue(apart.pid)) == noted(tmp_path / "note")[0]


def test_one_that_does_not_listen_at_its_timeout_is_killed(start: Start, queue: JobQueue, tmp_path: Path) -> None:
    start()
    job_id = queue.enqueue(apart.ignore_all, file=str(tmp_path / "note"))
    assert "longer than its timeout" in error(queue, job_id)
    assert not runs(noted(tmp_path / "note")[0])


@everywhere
@pytest.mark.parametrize("kind", ["def", "async"])
def test_a_job_that_is_cancelled_is_told_and_its_process_goes_on(
    start: Start, queue: JobQueue, tmp_path: Path, events: Events, kind: str
) -> None:
    start()
    waiting = apart.loop_until_cancelled if kind == "def" else apart.wait_until_cancelled
    job_id = queue.enqueue(waiting, file=str(tmp_path / "note"))
    (pid,) = noted(tmp_path / "note")
    assert queue.cancel(job_id)
    noted(tmp_path / "note.told")
    assert result(queue, queue.enqueue(apart.pid)) == pid
    assert get(queue, job_id).status == "cancelled"
    assert events.loud() == []


@pytest.mark.parametrize("kind", [apart.compute, apart.ignore_all], ids=["cannot hear", "does not listen"])
def test_a_job_that_is_cancelled_and_goes_on_is_killed(
    start: Start, queue: JobQueue, tmp_path: Path, events: Events, kind: Callable[..., None]
) -> None:
    start()
    job_id = queue.options(timeout=60).enqueue(kind, file=str(tmp_path / "note"))
    (pid,) = noted(tmp_path / "note")
    assert queue.cancel(job_id)
    gone(pid)
    result(queue, queue.enqueue(apart.pid))
    assert get(queue, job_id).status == "cancelled"
    assert events.loud() == []


def test_what_a_job_has_started_is_killed_with_it(start: Start, queue: JobQueue, tmp_path: Path) -> None:
    start()
    job_id = queue.enqueue(apart.start_a_program, file=str(tmp_path / "note"))
    pid, program = noted(tmp_path / "note")
    assert runs(program)
    queue.cancel(job_id)
    gone(pid)
    gone(program)


@everywhere
def test_a_worker_that_stops_lets_a_job_finish(start: Start, queue: JobQueue, tmp_path: Path) -> None:
    worker = start()
    a, b = tmp_path / "a", tmp_path / "b"
    job_id = queue.enqueue(apart.meet, mine=str(a), other=str(b))
    (pid,) = noted(a)
    b.touch()
    worker.stop()
    assert get(queue, job_id).result == pid
    assert not runs(pid)


@everywhere
def test_what_does_not_end_in_time_is_killed_and_handed_back_at_no_charge(
    start: Start, queue: JobQueue, tmp_path: Path
) -> None:
    worker = start()
    job_id = queue.enqueue(apart.compute, file=str(tmp_path / "note"))
    (pid,) = noted(tmp_path / "note")
    worker.stop(timeout=0.2)
    assert not runs(pid)
    assert (get(queue, job_id).status, get(queue, job_id).attempts) == ("pending", 0)


def test_one_that_may_start_but_once_fails_when_its_worker_stops(start: Start, queue: JobQueue, tmp_path: Path) -> None:
    worker = start()
    job_id = queue.enqueue(apart.compute, file=str(tmp_path / "note"), max_retries=0)
    (pid,) = noted(tmp_path / "note")
    worker.stop(timeout=0.2)
    assert not runs(pid)
    assert "max_retries=0 allows one start" in error(queue, job_id)


def test_signals_that_come_while_it_starts_are_its_workers_business(
    start: Start, queue: JobQueue, no_process_left: Callable[[], set[int]]
) -> None:
    start()
    job_id = queue.enqueue(apart.pid, max_retries=0)
    (pid,) = until(no_process_left)
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    assert result(queue, job_id, 30) == pid


@pytest.mark.parametrize("kind", [apart.compute, apart.start_a_program], ids=["holds the GIL", "with a program"])
def test_when_the_worker_is_killed_its_jobs_end_with_it(
    queue: JobQueue, processes: Processes, tmp_path: Path, kind: Callable[..., None]
) -> None:
    worker = processes.start(lease=30.0, imports=["tests.support.apart"])
    queue.enqueue(kind, file=str(tmp_path / "note"))
    pids = noted(tmp_path / "note")
    assert all(map(runs, pids))
    worker.kill()
    for pid in pids:
        gone(pid)


def test_a_job_whose_lease_cannot_be_renewed_is_killed_before_others_may_take_it(
    start: Start, queue: JobQueue, dsn: str, tmp_path: Path, events: Events
) -> None:
    proxy, through = proxied(dsn)
    with proxy, PostgresStorage(through) as storage:
        start(JobQueue(storage), lease=3.0, shutdown_timeout=1.0)
        job_id = queue.enqueue(apart.compute, file=str(tmp_path / "note"))
        (pid,) = noted(tmp_path / "note")
        (tmp_path / "note").unlink()
        other = start(lease=6.0)
        proxy.blackhole()
        (again,) = noted(tmp_path / "note")
        assert not runs(pid)
        assert again != pid
        assert events.jobs("job.fenced") == [job_id]
        proxy.heal()
        queue.cancel(job_id)
        gone(again)
        other.stop()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_for_everybody_are_left_to_the_worker(start: Start, queue: JobQueue, number: int) -> None:
    start()
    pid = result(queue, queue.enqueue(apart.pid))
    assert result(queue, queue.enqueue(apart.signal_myself, number=number)) == pid
    os.kill(pid, number)
    assert result(queue, queue.enqueue(apart.pid)) == pid
    assert os.getpgid(pid) == pid  # a Ctrl-C in a terminal does not even reach it


# What comes of it.


@everywhere
def test_arguments_and_results_pass_unchanged(start: Start, queue: JobQueue) -> None:
    start()
    values = [None, 0, -1.5, 2**70, "\xfcn\x7f\U0001f600", [1, [2]], {"a": {"b": None}}, "x" * 1_000_000]
    ids = [queue.enqueue(apart.echo, value=value) for value in values]
    assert [result(queue, job_id) for job_id in ids] == values


def test_a_result_of_ten_megabytes_passes(start: Start, queue: JobQueue, loop: str) -> None:
    start()
    assert len(result(queue, queue.enqueue(apart.give, letters=10_000_000), timeout=30)) == 10_000_000


def test_a_result_that_is_not_json_is_dropped_and_the_job_completed(start: Start, queue: JobQueue) -> None:
    start()
    job_id = queue.enqueue(apart.no_json)
    assert result(queue, job_id) is None
    assert "a result of type object cannot be stored as JSON" in (get(queue, job_id).error or "")


@pytest.mark.parametrize(
    ("kind", "says", "attempts"),
    [
        ("plain", "ValueError: not worth a retry", 1),
        ("unsendable", "Unsendable: cannot be sent", 3),
        ("discard", "Discard: not at all", 1),
        ("sys.exit", "SystemExit: 3", 1),
        ("interrupt", "KeyboardInterrupt: ", 1),
    ],
)
def test_what_it_raises_is_its_failure_with_a_traceback_and_its_own_policy(
    start: Start, queue: JobQueue, kind: str, says: str, attempts: int
) -> None:
    start()
    job_id = queue.enqueue(apart.fail, kind=kind, max_retries=2)
    said = error(queue, job_id)
    assert said.startswith(says)
    assert "in fail\n" in said
    assert "dbjobq/runtime" not in said
    assert get(queue, job_id).attempts == attempts


def test_retry_says_when_to_run_again(start: Start, queue: JobQueue) -> None:
    start()
    job_id = queue.enqueue(apart.fail, kind="retry")
    after = failed_once(queue, job_id, timeout=60)
    assert after.status == "pending"
    assert after.execute_at is not None
    assert after.updated_at is not None
    assert 2990 < (after.execute_at - after.updated_at).total_seconds() < 3010


def test_an_async_def_that_exits_is_retried_in_the_same_process(start: Start, queue: JobQueue) -> None:
    start()
    first = result(queue, queue.enqueue(apart.pid))
    assert error(queue, queue.enqueue(apart.afail)).startswith("SystemExit: 4")
    assert result(queue, queue.enqueue(apart.pid)) == first


# What it is given.


@everywhere
@pytest.mark.parametrize("kind", [apart.follow_up, apart.afollow_up], ids=["def", "async"])
def test_a_job_may_enqueue_more(start: Start, queue: JobQueue, kind: Callable[..., Any]) -> None:
    start()
    for value in (1, 2):
        follower = result(queue, queue.enqueue(kind, value=value))
        assert result(queue, follower) == value


def test_a_database_in_the_workers_memory_is_out_of_reach_and_that_is_said_when_it_is_used(start: Start) -> None:
    from dbjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

    with SQLAlchemyStorage("sqlite:///:memory:") as storage:
        queue = JobQueue(storage)
        worker = start(queue)
        job_id = queue.enqueue(apart.describe)
        assert result(queue, job_id) == [job_id, worker.worker_id, 0, False]
        refused = queue.enqueue(apart.follow_up, value=1)
        assert error(queue, refused).startswith("NotSupported: ctx.queue: tests.support.apart.follow_up runs in a")
        assert get(queue, refused).attempts == 1
        worker.stop()


@everywhere
def test_what_it_says_of_its_progress_is_seen_the_last_word_of_it(
    start: Start, queue: JobQueue, tmp_path: Path
) -> None:
    start()
    seen, enough = tmp_path / "seen", tmp_path / "enough"
    job_id = queue.enqueue(apart.progress, seen=str(seen), enough=str(enough))
    for word, file in (("the first word", seen), ("the last word", enough)):
        until(lambda word=word: (queue.get_progress(job_id) or {}).get("message") == word, timeout=60)  # type: ignore[misc]
        file.touch()
    ended(queue, [job_id])


def test_what_it_logs_is_logged_by_the_worker(start: Start, queue: JobQueue, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.WARNING, "myapp.quiet")
    caplog.set_level(logging.DEBUG, "myapp.loud")
    start()
    job_id = queue.enqueue(apart.say)
    ended(queue, [job_id], timeout=60)
    lines = {record.getMessage(): record for record in caplog.records}
    assert "unheard" not in lines
    assert lines["heard"].levelno == logging.DEBUG
    at_work = vars(lines["at work"])
    assert at_work["name"] == "dbjobq.job.tests.support.apart.say"
    assert (at_work["job_id"], at_work["attempt"]) == (job_id, 1)
    assert vars(lines["more"])["mine"] == {"a": [1, "b"]}
    assert at_work["process"] != os.getpid()
    assert "ValueError: broken" in (lines["caught"].exc_text or "")


@pytest.fixture
def a_role(dsn: str) -> Iterator[str]:
    """Another superuser, whose password is "not-to-be-seen"."""
    name = f"dbjobq_test_{secrets.token_hex(4)}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        role = sql.Identifier(name)
        connection.execute(sql.SQL("create role {} superuser login password 'not-to-be-seen'").format(role))
        yield name
        connection.execute(sql.SQL("drop role {}").format(role))


def test_it_has_the_environment_of_its_worker_and_no_password_where_others_can_read_it(
    start: Start, dsn: str, a_role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBJOBQ_TEST_WORD", "of mine")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    with PostgresStorage(make_conninfo(dsn, user=a_role, password="not-to-be-seen")) as storage:
        queue = JobQueue(storage)
        worker = start(queue)
        word, path, public = result(queue, queue.enqueue(apart.environment, name="DBJOBQ_TEST_WORD"))
        assert (word, path) == ("of mine", "/nowhere")
        assert "not-to-be-seen" not in public
        assert result(queue, queue.enqueue(apart.follow_up, value=1))  # which has needed it
        worker.stop()


# Which functions.


def test_a_function_that_only_this_process_has_fails_and_it_is_said_what_to_do(start: Start, queue: JobQueue) -> None:
    start(unknown_within=0)
    said = error(queue, queue.enqueue(apart.made(3), value=2))
    assert said.startswith("UnknownJobType: no function for job type 'apart.times_3'")
    assert "Decorate it with @job at the top level of a module" in said


def test_one_that_is_registered_by_a_module_that_the_worker_was_told_of_is_found_by_that(
    start: Start, queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apart_setup.py").write_text("from tests.support import apart\nmade = apart.made(5)\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    start(imports=["apart_setup"])
    assert result(queue, queue.enqueue("apart.times_5", value=2)) == 10


def test_a_module_that_cannot_be_imported_there_fails_the_job_and_says_why(
    start: Start, queue: JobQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "apart_only_here"
    (tmp_path / f"{name}.py").write_text(
        f"import os\nassert os.getpid() == {os.getpid()}, 'not there'\n"
        "from dbjobq import job\n@job(executor='process', max_retries=0)\ndef f(): ...\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    start(imports=[name], unknown_within=0)
    said = error(queue, queue.enqueue(f"{name}.f", max_retries=0))
    assert said.startswith(f"ConfigError: cannot import '{name}': AssertionError: not there")


SCRIPT = """
    import os, sys, time
    from pathlib import Path
    from dbjobq import JobQueue, Worker, job
    from tests.support.storages import storage_at

    @job(executor="process", max_retries=0)
    def where():
        return [os.getpid(), __name__]

    def main():
        storage = storage_at(sys.argv[1])
        worker = Worker(JobQueue(storage), poll_interval=0.05)
        worker.start()
        sys.stdin.read()
        worker.stop()
        storage.close()
"""


@pytest.fixture
def script(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Runs a script with this at its end, until the test ends."""
    started: list[subprocess.Popen[bytes]] = []

    def run(end: str) -> subprocess.Popen[bytes]:
        file = tmp_path / "my-script.py"
        file.write_text(textwrap.dedent(SCRIPT) + end)
        root = str(Path(__file__).parents[2])
        process = subprocess.Popen(
            [sys.executable, str(file), address], stdin=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.communicate(timeout=200)


def test_the_functions_of_a_script_run(queue: JobQueue, script: Callable[[str], Any]) -> None:
    program = script("\nif __name__ == '__main__':\n    main()\n")
    pid, name = result(queue, queue.enqueue("my-script.where"))
    assert pid != program.pid
    assert name == "my-script"


def test_a_script_that_starts_its_worker_unguarded_is_told_so(queue: JobQueue, script: Callable[[str], Any]) -> None:
    script("\nmain()\n")
    job_id = queue.enqueue("my-script.where", max_retries=1)
    said = until(lambda: error_of(queue, job_id))
    assert (get(queue, job_id).status, get(queue, job_id).attempts) == ("pending", 0)  # it may be mended by a deploy
    assert "RuntimeError: no worker starts in the process of a job" in said
    assert "if __name__ == '__main__':" in said


# What it leaves behind.


def test_what_it_prints_appears(start: Start, queue: JobQueue, capfd: pytest.CaptureFixture[str]) -> None:
    start()
    ended(queue, [queue.enqueue(apart.print_something) for _ in range(2)], timeout=60)
    assert capfd.readouterr().out.count("printed") == 2


@pytest.mark.parametrize("kind", [apart.close_stdout, apart.leave_threads], ids=["stdout closed", "threads left"])
def test_what_a_job_leaves_behind_is_not_in_the_way_of_the_next_nor_of_the_end(
    start: Start, queue: JobQueue, kind: Callable[..., Any]
) -> None:
    worker = start()
    pid = result(queue, queue.enqueue(apart.pid))
    ended(queue, [queue.enqueue(kind)])
    assert result(queue, queue.enqueue(apart.pid)) == pid
    worker.stop()
    gone(pid)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_job_may_have_processes_of_its_own(
    start: Start, queue: JobQueue, method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    start()
    job_id = queue.enqueue(apart.use_a_pool, method=method)
    assert result(queue, job_id, timeout=30) == [number * number for number in range(50)]
    result(queue, queue.enqueue(apart.pid))


def test_what_a_job_forks_ends_by_a_signal_as_any_process_does(start: Start, queue: JobQueue) -> None:
    start()
    assert result(queue, queue.enqueue(apart.terminate_forks, times=200), timeout=30) == signal.SIGTERM


def test_no_worker_starts_in_the_process_of_a_job(start: Start, queue: JobQueue, address: str) -> None:
    start()
    job_id = queue.enqueue(apart.start_a_worker, address=address, max_retries=0)
    assert "RuntimeError: no worker starts in the process of a job" in error(queue, job_id)


def test_other_jobs_go_on_while_a_process_holds_its_gil(start: Start, queue: JobQueue, tmp_path: Path) -> None:
    @job
    async def quick() -> None: ...

    start(concurrency=2)
    job_id = queue.enqueue(apart.compute, file=str(tmp_path / "note"))
    noted(tmp_path / "note")
    ended(queue, [queue.enqueue(quick) for _ in range(50)])
    lasting(lambda: get(queue, job_id).status == "running", 0.1)
    queue.cancel(job_id)
