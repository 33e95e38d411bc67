"""Run an installed dbjobq from outside its checkout: migrate, enqueue, work, stop, list; and a job on SQLite.

Usage: smoke.py, with the Python that dbjobq[embedded] is installed for.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dbjobq
from dbjobq.embedded import EmbeddedPostgres
from dbjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

DBJOBQ = Path(sys.executable).with_name("dbjobq")
TIMEOUT = 30
"""Seconds a command, or the job, may take."""

MODULE = """
from dbjobq import job


@job
def double(number: int) -> int:
    return 2 * number
"""


def run(*args: str) -> str:
    """Run the command line and return what it printed."""
    done = subprocess.run([DBJOBQ, *args], check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT)
    return done.stdout


def work_until_done(queue: dbjobq.JobQueue, job_id: str) -> dbjobq.Job:
    """Have a worker run the job, end it with SIGTERM, and return the job."""
    with subprocess.Popen([DBJOBQ, "worker", "smoke_tasks"]) as worker:
        try:
            deadline = time.monotonic() + TIMEOUT
            while (job := queue.get_job(job_id)) is None or job.status != "completed":
                if worker.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"smoke: the job was not run: {job}")
                time.sleep(0.05)
            worker.send_signal(signal.SIGTERM)
            code = worker.wait(TIMEOUT)
        finally:
            worker.kill()
    if code != 0:
        sys.exit(f"smoke: the worker's exit code after SIGTERM is {code}")
    return job


def try_sqlite() -> None:
    """Run a job on SQLite, here and now."""
    with dbjobq.JobQueue(SQLAlchemyStorage("sqlite:///smoke.db")) as queue:
        job_id = queue.enqueue(importlib.import_module("smoke_tasks").double, number=21)
        claimed = queue.dequeue()
        if claimed is None or claimed.id != job_id:
            sys.exit(f"smoke: SQLite gave {claimed}")
        queue.execute_job(claimed)
        job = queue.get_job(job_id)
        if job is None or job.result != 42:
            sys.exit(f"smoke: SQLite has {job}")


def main() -> None:
    """Run everything in a directory of its own, on a server of its own."""
    with tempfile.TemporaryDirectory() as directory, EmbeddedPostgres() as server:
        os.chdir(directory)
        Path("smoke_tasks.py").write_text(MODULE)
        sys.path.insert(0, directory)
        os.environ |= {"DBJOBQ_DSN": server.dsn(), "PYTHONPATH": directory}
        run("migrate")
        storage = dbjobq.PostgresStorage()
        queue = dbjobq.JobQueue(storage)
        job = work_until_done(queue, queue.enqueue("smoke_tasks.double", number=21))
        storage.close()
        if job.result != 42:
            sys.exit(f"smoke: the result is {job.result!r}")
        listed = json.loads(run("jobs", "list", "--json"))
        if [row["id"] for row in listed] != [job.id]:
            sys.exit(f"smoke: `dbjobq jobs list --json` printed {listed}")
        try_sqlite()
        os.chdir("/")
    print(f"smoke: dbjobq {dbjobq.__version__} from {Path(dbjobq.__file__).parent} works")


if __name__ == "__main__":
    main()
