from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import pytest

from dbjobq.cli.serving import parent
from dbjobq.cli.serving.parent import Processes, Stop, restart_delay
from tests.cli.support import TIMEOUT, all_gone, eventually, started
from tests.support.process import runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dbjobq import JobQueue


def test_the_delay_doubles_to_half_a_minute_and_is_spread() -> None:
    assert [restart_delay(n, 0.0) for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert restart_delay(1000, 0.5) == 22.5


# What the parent does, with processes that are none.


class FakeProcess:
    """A worker process that works, unless it is told to fail."""

    def __init__(self, pid: int, code: int | None) -> None:
        self.pid = pid
        self.stops = 0
        self.code = code
        self.ended = threading.Event()
        self.let_ready = threading.Event()
        if code is not None:
            self.end(code)

    def end(self, code: int) -> None:
        self.code = code
        self.ended.set()
        self.let_ready.set()

    def wait_ready(self) -> bool:
        assert self.let_ready.wait(TIMEOUT)
        return self.code is None

    def wait(self) -> int:
        assert self.ended.wait(TIMEOUT)
        assert self.code is not None
        return self.code

    def stop(self) -> None:
        self.stops += 1

    def kill(self) -> None:
        self.end(-9)


def do_nothing(_call: Callable[[], None]) -> None: ...


def at_once(_crashes: int, _chance: float) -> float:
    return 0.0


class Family:
    """A parent at work in a thread, and the processes it has started."""

    def __init__(self) -> None:
        self.children: list[FakeProcess] = []
        self.fail_with: int | None = None
        self.changes: SimpleQueue[Sequence[str]] = SimpleQueue()
        self.code: int | None = None

    def spawn(self, _arguments: Any, _environment: Any) -> FakeProcess:
        self.children.append(FakeProcess(len(self.children), self.fail_with))
        return self.children[-1]

    def start(self, size: int, *, reload: bool = False) -> None:
        changes = iter(self.changes.get, ["end"]) if reload else None
        self.parent = Processes([], {}, size=size, shutdown_timeout=0, changes=changes)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.code = self.parent.run()

    def count(self, number: int) -> list[FakeProcess]:
        """Wait until so many were started in all; return them."""
        eventually(lambda: len(self.children) >= number)
        return self.children

    def stop(self) -> None:
        self.parent._events.put(Stop())  # pyright: ignore[reportPrivateUsage]

    def exit_code(self) -> int | None:
        self.thread.join(TIMEOUT)
        return self.code


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Iterator[Family]:
    family = Family()
    monkeypatch.setattr(parent, "WorkerProcess", family.spawn)
    monkeypatch.setattr(parent, "on_stop_signals", do_nothing)
    monkeypatch.setattr(parent, "restart_delay", at_once)
    yield family
    family.stop()

    def ended() -> bool:
        for child in family.children:  # the last one may have been started since
            child.end(0)
        return not family.thread.is_alive()

    eventually(ended)


def test_the_first_goes_ahead_of_the_others(family: Family) -> None:
    family.start(3)
    (first,) = family.count(1)
    assert len(family.children) == 1
    first.let_ready.set()
    assert len(family.count(3)) == 3


def test_a_first_start_that_fails_ends_the_parent(family: Family) -> None:
    family.fail_with = 2
    family.start(3)
    assert family.exit_code() == 2
    assert len(family.children) == 1


def test_one_that_crashes_is_replaced(family: Family) -> None:
    family.start(1)
    for number in range(1, 10):
        child = family.count(number)[-1]
        child.let_ready.set()
        eventually(family.parent._at_work)  # pyright: ignore[reportPrivateUsage]
        child.end(-11)
    assert family.code is None


def test_starts_that_keep_failing_end_the_parent(family: Family) -> None:
    family.start(1)
    (first,) = family.count(1)
    first.let_ready.set()
    eventually(lambda: family.parent._was_ready)  # pyright: ignore[reportPrivateUsage]
    family.fail_with = 1
    first.end(-9)
    assert family.exit_code() == 1
    assert len(family.children) == 1 + parent.FAILED_STARTS


def test_they_do_not_end_it_while_another_works(family: Family) -> None:
    family.start(2)
    family.count(1)[0].let_ready.set()
    second = family.count(2)[1]
    family.fail_with = 1
    second.end(1)
    family.count(2 + 2 * parent.FAILED_STARTS)
    assert family.code is None


def test_each_signal_is_passed_on_and_the_parent_waits(family: Family) -> None:
    family.start(1)
    (child,) = family.count(1)
    child.let_ready.set()
    family.stop()
    family.stop()
    eventually(lambda: child.stops == 2)
    assert family.code is None
    child.end(0)
    assert family.exit_code() == 0


def test_one_that_does_not_end_in_time_is_killed(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "KILL_AFTER", 0.05)
    family.start(1)
    (child,) = family.count(1)
    family.stop()
    assert family.exit_code() == 0
    assert child.code == -9


def test_a_kill_is_said_once(family: Family, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Also while the process that was killed is not reaped yet, and other things happen."""
    monkeypatch.setattr(parent, "KILL_AFTER", 0.05)
    monkeypatch.setattr(FakeProcess, "kill", lambda _self: None)  # pyright: ignore[reportUnknownArgumentType,reportUnknownLambdaType]
    family.start(1)
    (child,) = family.count(1)
    child.let_ready.set()
    family.stop()
    eventually(lambda: "process.killed" in caplog.messages)
    for stops in (2, 3):
        family.stop()
        eventually(lambda stops=stops: child.stops == stops)  # type: ignore[misc]
    child.end(-9)
    assert family.exit_code() == 0
    assert caplog.messages.count("process.killed") == 1


def test_a_change_replaces_all_of_them(family: Family) -> None:
    family.start(2, reload=True)
    family.count(1)[0].let_ready.set()
    family.count(2)[1].let_ready.set()
    family.changes.put(["app.py"])
    eventually(lambda: [child.stops for child in family.children] == [1, 1])
    for child in list(family.children):
        child.end(0)
    family.count(3)[2].let_ready.set()
    assert len(family.count(4)) == 4


def test_broken_code_waits_for_the_next_change(family: Family) -> None:
    family.fail_with = 1
    family.start(1, reload=True)
    family.count(1)
    eventually(lambda: family.parent._start_at == float("inf"))  # pyright: ignore[reportPrivateUsage]
    family.fail_with = None
    family.changes.put(["app.py"])
    assert len(family.count(2)) == 2
    assert family.code is None


# With real processes.


def test_a_crashed_process_is_replaced_and_a_signal_ends_all(dsn: str, queue: JobQueue, app: Path) -> None:
    with started(app, dsn, "worker", "tasks", "--processes=2") as parent:
        parent.says("worker.serving", times=2)
        queue.enqueue("tasks.crash")
        parent.says("process.died")
        parent.says("worker.serving", times=3)
        pids = parent.pids()
        parent.signal(signal.SIGTERM)
        assert parent.exit_code() == 0, parent.log
        assert not any(map(runs, pids))
    assert parent.log.count("code=7") == 1


ORDERS: Final[dict[str, Callable[[int, list[int]], list[int | None]]]] = {
    "at once": lambda parent, workers: [*workers, parent],
    "the parent first": lambda parent, workers: [parent, None, *workers],
    "the workers first": lambda parent, workers: [*workers, None, parent],
}
"""In which order a service manager's signal comes to all; None for a while in between."""


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_to_every_process_leaves_jobs_their_time(
    dsn: str, queue: JobQueue, app: Path, order: str, number: signal.Signals
) -> None:
    with started(app, dsn, "worker", "tasks", "--processes=2") as parent:
        parent.says("worker.serving", times=2)
        ids = [queue.enqueue("tasks.takes", seconds=1.0) for _ in range(2)]
        eventually(lambda: queue.count("running") == 2)
        for pid in ORDERS[order](parent.popen.pid, parent.pids()):
            if pid is None:
                time.sleep(0.05)
            else:
                os.kill(pid, number)
        assert parent.exit_code() == 0, parent.log
    assert {found.status for i in ids if (found := queue.get_job(i))} == {"completed"}, parent.log
    assert "job.released" not in parent.log


def test_a_signal_to_every_process_while_they_start_is_no_failure(dsn: str, app: Path) -> None:
    with started(app, dsn, "worker", "tasks", "--processes=2") as parent:
        (pid,) = eventually(lambda: _children(parent.popen.pid))
        os.kill(pid, signal.SIGTERM)  # before it has installed any handler, most likely
        parent.says("process.died")
        assert parent.popen.poll() is None
        parent.says("worker.serving", times=2)
        parent.signal(signal.SIGTERM)
        assert parent.exit_code() == 0, parent.log


def _children(pid: int) -> list[int]:
    """Return a process's children, whichever of its threads has started them."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def test_a_second_signal_to_every_process_hands_back(dsn: str, queue: JobQueue, app: Path) -> None:
    with started(app, dsn, "worker", "tasks", "--processes=2") as parent:
        parent.says("worker.serving", times=2)
        job_id = queue.enqueue("tasks.takes", seconds=300.0)
        eventually(lambda: queue.count("running") == 1)
        for number, _ in enumerate(("stop", "hand back")):
            for pid in [*parent.pids(), parent.popen.pid]:
                with suppress(ProcessLookupError):  # the one that is idle may have ended at the first
                    os.kill(pid, signal.SIGTERM)
            parent.says("process.stopping", times=number + 1)
        assert parent.exit_code() == 0, parent.log
    found = queue.get_job(job_id)
    assert found is not None
    assert (found.status, found.attempts) == ("pending", 0)


def test_the_children_end_when_the_parent_is_killed(dsn: str, app: Path) -> None:
    with started(app, dsn, "worker", "tasks", "--processes=2") as parent:
        parent.says("worker.serving", times=2)
        parent.signal(signal.SIGKILL)
        all_gone(parent.pids())


def test_jobs_in_processes_of_their_own_end_with_all_others_when_the_parent_is_killed(
    dsn: str, queue: JobQueue, app: Path
) -> None:
    with started(app, dsn, "worker", "tasks", "--processes=2", "--shutdown-timeout=1") as parent:
        parent.says("worker.serving", times=2)
        whose = queue.enqueue("tasks.apart")
        eventually(lambda: (found := queue.get_job(whose)) and found.result in parent.pids())
        queue.enqueue("tasks.apart", file="computing")
        computing = app / "computing"
        pid = eventually(lambda: computing.exists() and int(computing.read_text() or 0))
        parent.signal(signal.SIGKILL)
        all_gone([*parent.pids(), pid])


def test_what_is_wrong_with_all_is_said_once(empty_dsn: str, app: Path) -> None:
    with started(app, empty_dsn, "worker", "tasks", "--processes=3") as parent:
        assert parent.exit_code() == 1
    assert len(parent.log.splitlines()) == 1


def test_reload_runs_the_new_code(dsn: str, queue: JobQueue, app: Path) -> None:
    with started(app, dsn, "worker", "tasks", "--reload") as parent:
        parent.says("worker.serving")
        (app / "tasks.py").write_text("from dbjobq import job\n@job\ndef add(a, b): return 'new'\n")
        parent.says("worker.serving", times=2)
        job_id = queue.enqueue("tasks.add", a=1, b=2)
        job = eventually(lambda: (found := queue.get_job(job_id)) and found.status == "completed" and found)
        parent.signal(signal.SIGINT)
        assert parent.exit_code() == 0
    assert job.result == "new"
