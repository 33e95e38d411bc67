"""The page on `Worker`, docs/worker.md: its Python blocks run as they stand; its signatures and timeline are checked.

On SQLite nothing is replaced; on PostgreSQL the storage is. What would go on for ever is ended: by `nap`, which takes
the place of `time.sleep` in the page's own code, or by a signal.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import ast
import inspect
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dbjobq import JobQueue, PostgresStorage, Worker, job
from tests.support.page import ROOT, python_blocks
from tests.support.waiting import ended, until
from tests.worker.conftest import LASTING, Start

pytestmark = [
    pytest.mark.every_storage,
    pytest.mark.filterwarnings("ignore:Exception in thread .*monitor_worker"),  # the page's, ended by `Enough`
]

BLOCKS = python_blocks("docs/worker.md")
SIGNATURE = re.compile(r"(@property\n)?def \w+\([^)]*\)( -> [^:\n]+)?\s*")
SIGNATURES = [block for block in BLOCKS if SIGNATURE.fullmatch(block)]
EXAMPLES = [block for block in BLOCKS if block not in SIGNATURES]
SIGNALS = next(block for block in EXAMPLES if "signal.pause()" in block)
LATE = 0.5
"""Seconds that a poll may come late on a busy machine; none may come early."""


def the_block(line: str) -> str:
    """The one example that has this in it."""
    (found,) = [block for block in EXAMPLES if line in block]
    return found


class Enough(SystemExit):
    """Ends a loop of the page's; in a thread nobody hears of it."""


class Page:
    """Runs the page's code.

    Args:
        queue: What the page calls `queue` where it does not make one.
        address: Where that is.
        started: The workers that were started, as they come.
        patch: For `time.sleep`.
    """

    def __init__(self, queue: JobQueue, address: str, started: list[Worker], patch: pytest.MonkeyPatch) -> None:
        self.address, self.started = address, started
        self.names: dict[str, Any] = {"Worker": Worker, "JobQueue": JobQueue, "PostgresStorage": PostgresStorage}
        self.names |= {"queue": queue, "worker": Worker(queue), "time": time, "alert": self.alert}
        self.alerts: list[str] = []
        self.naps: list[Callable[[], object]] = []
        """What happens at the page's sleeps, one after the other; then it is enough."""
        self.over = threading.Event()
        patch.setattr(time, "sleep", self._sleeping(time.sleep))

    def _sleeping(self, sleep: Callable[[float], None]) -> Callable[[float], None]:
        def nap(seconds: float) -> None:
            if sys._getframe(1).f_globals is not self.names:
                sleep(seconds)
            elif self.naps:
                self.naps.pop(0)()
            else:
                self.over.set()
                raise Enough

        return nap

    def alert(self, said: str) -> None:
        self.alerts.append(said)

    def text(self, block: str) -> str:
        """A block, on this storage."""
        if self.address.startswith("sqlite:"):
            return block
        return block.replace('SQLAlchemyStorage("sqlite:///jobs.db")', f"PostgresStorage({self.address!r})")

    def run(self, block: str) -> dict[str, Any]:
        """Run a block to its end, or until it is enough; return the names it leaves."""
        try:
            exec(compile(self.text(block), "docs/worker.md", "exec"), self.names)
        except Enough:
            assert self.over.is_set()
        return self.names


@pytest.fixture
def page(queue: JobQueue, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """The page, in a folder of its own; what it leaves running is stopped."""
    started: list[Worker] = []
    start = Worker.start

    def noted(self: Worker) -> None:
        started.append(self)
        start(self)

    monkeypatch.setattr(Worker, "start", noted)
    monkeypatch.chdir(tmp_path)
    page = Page(queue, address, started, monkeypatch)
    yield page
    for worker in started:
        worker.stop()
    if "storage" in page.names:
        page.names["storage"].close()


def test_the_page_has_the_blocks_that_are_looked_for() -> None:
    assert (len(SIGNATURES), len(EXAMPLES)) == (5, 13)


@pytest.mark.parametrize("block", SIGNATURES, ids=lambda block: block.partition("(")[0].split()[-1])
def test_a_signature_on_the_page_is_the_classs(block: str) -> None:
    (stub,) = ast.parse(block.rstrip() + ": ...").body
    assert isinstance(stub, ast.FunctionDef)
    real: Any = vars(Worker)[stub.name]
    assert isinstance(real, property) is bool(stub.decorator_list)
    called: Any = real.fget if isinstance(real, property) else real
    signature = inspect.signature(called)
    names = [argument.arg for argument in stub.args.args]
    assert list(signature.parameters)[: len(names)] == names
    defaults = {name: p.default for name, p in signature.parameters.items() if p.default is not p.empty}
    said = dict(zip(names[::-1], [ast.literal_eval(d) for d in stub.args.defaults[::-1]], strict=False))
    assert said == {name: defaults[name] for name in said}
    assert set(signature.parameters) - set(names) <= set(defaults)
    assert stub.returns is None or ast.unparse(stub.returns) == signature.return_annotation


@pytest.mark.parametrize(
    "block", [block for block in EXAMPLES if block != SIGNALS], ids=lambda block: f"{BLOCKS.index(block)}"
)
def test_an_example_runs_as_it_stands_and_its_workers_work(
    page: Page, queue: JobQueue, block: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @job(name="page.hello")
    def hello() -> None: ...

    names = page.run(block)
    if "monitor_thread" in names:
        assert page.over.wait(60)
    assert capsys.readouterr().out.count("\n") >= block.count("\nprint(")
    assert page.alerts == [] or "Worker unhealthy: Worker not started" in page.alerts
    if any(worker._worker_thread.is_alive() for worker in page.started):
        ended(queue, [queue.enqueue(hello)])
    for worker in page.started:
        worker.stop()
        assert worker.error is None


def test_the_example_of_current_job_tells_what_runs(
    page: Page, queue: JobQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(page, the_block("# Monitor from another thread"), queue, capsys) == [
        "Worker is idle",
        "Processing: page.hold (attempt 1)",
        "Worker is idle",
    ]


def test_the_example_of_a_monitor_tells_what_runs_and_for_how_long(
    page: Page, queue: JobQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [line.partition("] ")[2] or line for line in told(page, the_block("def monitor_worker"), queue, capsys)]
    assert [re.sub(r"[0-9a-f]{8}-\S+|\d\.\ds", "…", line) for line in said] == [
        "Idle (queue: 0)",
        "Processing: page.hold",
        "  Job ID: …",
        "  Attempt: 1/3",
        "  Elapsed: …",
        "Idle (queue: 0)",
    ]


def told(page: Page, block: str, queue: JobQueue, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What an example prints that looks three times: before, while and after a job runs."""
    go_on = threading.Event()

    @job(name="page.hold")
    def hold() -> None:
        go_on.wait(LASTING)

    def begin() -> None:
        queue.enqueue(hold)
        until(lambda: page.names["worker"].current_job)

    def end() -> None:
        go_on.set()
        until(lambda: page.names["worker"].current_job is None)

    page.naps = [begin, end]
    page.run(block)
    assert page.over.wait(60)
    return capsys.readouterr().out.splitlines()


def test_the_context_manager_of_the_page_stops_its_worker(page: Page) -> None:
    page.run(the_block("class WorkerContext"))
    (worker,) = page.started
    assert not worker._worker_thread.is_alive()


def test_the_health_check_of_the_page_tells_the_worker_that_did_not_start_works_and_died(
    page: Page, queue: JobQueue
) -> None:
    worker = page.names["worker"] = Worker(queue, queues=["served"])
    monitor = page.run(the_block("class HealthMonitor"))["monitor"]
    assert page.alerts == ["Worker unhealthy: Worker not started"]
    worker.start()
    assert monitor.check_health() == (True, "Healthy")
    queue.enqueue("nobody.serves.this")
    assert monitor.check_health() == (True, "Healthy")
    monitor.last_job_time -= timedelta(minutes=6)
    healthy, said = monitor.check_health()
    assert not healthy
    assert "with 1 pending jobs" in said
    worker.stop()
    assert monitor.check_health() == (False, "Worker thread died")


def test_the_restart_loop_of_the_page_replaces_a_worker_that_has_ended(
    page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    start_worker_with_restart = page.run(the_block("def start_worker_with_restart"))["start_worker_with_restart"]
    page.naps = [lambda: page.started[0].stop()]  # noqa: PLW0108 - it is not there yet
    with pytest.raises(Enough):
        start_worker_with_restart()
    assert capsys.readouterr().out == "Worker thread died, restarting...\n"
    assert [worker._worker_thread.is_alive() for worker in page.started] == [False, True]


PROLOGUE = """
import signal, sys, time
sys.stdout.reconfigure(line_buffering=True)

def pause():  # the real one sleeps through a signal that comes just before it
    while True:
        time.sleep(0.05)

signal.pause = pause
from dbjobq import JobQueue, Worker
from tests.support.storages import storage_at
queue = JobQueue(storage_at(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_signal_handler_of_the_page_stops_the_worker_and_the_process(address: str, number: signal.Signals) -> None:
    command = [sys.executable, "-c", PROLOGUE + SIGNALS, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Worker running")
        process.send_signal(number)
        said, error = process.communicate(timeout=200)
    assert process.returncode == 0, error
    assert said.split("\n")[1:] == ["Shutting down gracefully...", "Worker stopped", ""]
    assert error == ""


def test_the_waits_are_those_of_the_pages_timeline(start: Start, queue: JobQueue, claims: list[float]) -> None:
    """At a fortieth of the time; when the queue has run dry, the first wait is the first interval."""
    scale = 1 / 40
    timeline = the_block("# Timeline:")
    waits = [scale * float(seconds) for seconds in re.findall(r"\(empty\) → wait (\d+)s", timeline)]
    assert waits == [scale * seconds for seconds in (2, 4, 8, 16, 32, 60)]
    found = set(re.findall(r"\(job found\) → process → wait (\d+)s", timeline))
    assert found == {"1"}

    @job
    def hello() -> None: ...

    def as_expected(found: list[float]) -> bool:
        return all(e - 0.01 <= f <= e + LATE for f, e in zip(found, expected, strict=False))

    for expected in ([1 * scale, *waits], [1 * scale, *waits[:3]]):
        before, more = len(claims), len(expected) + 3  # which of the first claims comes back empty is chance
        job_id = queue.enqueue(hello)  # the first before anybody is there to be told
        if not before:
            start(poll_interval=1 * scale, max_poll_interval=60 * scale)
        ended(queue, [job_id])
        until(lambda last=before + more: len(claims) > last)  # type: ignore[misc]
        got = [b - a for a, b in pairwise(claims[before:])]
        assert any(as_expected(got[n:]) for n in range(3)), (got, expected)
