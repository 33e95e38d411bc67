"""Job functions for processes of their own, which import this module. They tell of themselves by files."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

from dbjobq import Discard, JobContext, JobQueue, ProcessDied, Retry, RetryPolicy, Worker, job


def hold_the_gil(word: str = "a" * 40 + "b") -> None:
    """Compute for ages in C, without ever letting another thread of this process run."""
    re.match(r"(a+)+$", word)


def note(file: str, word: object = "") -> None:
    """Say in a file, whole or not at all, that something has happened."""
    part = Path(f"{file}.part")
    part.write_text(f"{os.getpid()} {word}")
    part.rename(file)


def terminate_myself() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)


DEATHS: Final[dict[str, tuple[Callable[[], Any], str]]] = {
    "segmentation fault": (lambda: ctypes.string_at(0), "was killed by SIGSEGV"),
    "abort": (os.abort, "was killed by SIGABRT"),
    "out of memory": (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL, and not by its worker"),
    "os._exit": (lambda: os._exit(3), "ended with exit code 3"),
    "a signal of its own": (terminate_myself, "was killed by SIGTERM"),
    "closes everything": (lambda: os.closerange(0, 1000), "lost its connection to the worker"),
}
"""How a process may die of its job, and what is said of it."""


@job(executor="process", retry=0.01)
def die(how: str) -> None:
    DEATHS[how][0]()


@job(executor="process", retry=RetryPolicy(never=ProcessDied))
def die_once(how: str) -> None:
    DEATHS[how][0]()


@job(executor="process")
def pid() -> int:
    return os.getpid()


@job(executor="process")
async def apid() -> int:
    return os.getpid()


@job
def inline_pid() -> int:
    return os.getpid()


@job(executor="process")
def meet(mine: str, other: str) -> int:
    """Return when both are there."""
    note(mine)
    while not Path(other).exists():
        time.sleep(0.01)
    return os.getpid()


# What never ends by itself.


@job(executor="process", retry=0.01)
def compute(file: str) -> None:
    note(file)
    hold_the_gil()


@job(executor="process", timeout=0.5, max_retries=0)
def compute_too_long(file: str) -> None:
    note(file)
    hold_the_gil()


@job(executor="process", timeout=0.5, max_retries=0)
def ignore_all(ctx: JobContext, file: str) -> None:
    note(file)
    while True:
        time.sleep(1)


@job(executor="process")
def first_stays(file: str) -> list[int]:
    """Return who came first, and who this is; the first never returns."""
    if not Path(file).exists():
        note(file)
        time.sleep(60)
    return [int(Path(file).read_text().split()[0]), os.getpid()]


@job(executor="process")
def loop_until_cancelled(ctx: JobContext, file: str) -> None:
    note(file)
    while not ctx.cancelled:
        time.sleep(0.01)
    note(f"{file}.told")


@job(executor="process")
async def wait_until_cancelled(file: str) -> None:
    note(file)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        note(f"{file}.told")
        raise


@job(executor="process", timeout=0.5, max_retries=0)
async def wait_too_long(file: str) -> None:
    note(file)
    try:
        await asyncio.sleep(60)
    finally:
        note(f"{file}.told")


@job(executor="process")
def start_a_program(file: str) -> None:
    """Compute, while a program that this one has started sleeps."""
    with subprocess.Popen(["sleep", "600"]) as sleep:
        note(file, sleep.pid)
        hold_the_gil()


@job(executor="process")
def die_with_a_fork_that_lives(file: str) -> None:
    child = os.fork()
    if child == 0:
        time.sleep(600)
    note(file, child)
    os._exit(4)


# What it returns and raises.


@job(executor="process")
def echo(value: Any) -> Any:
    return value


@job(executor="process")
def give(letters: int) -> str:
    return "x" * letters


@job(executor="process")
def no_json() -> object:
    return object()


class Unsendable(Exception):  # noqa: N818
    """Cannot be pickled, nor made anew."""

    def __init__(self, one: object, two: object) -> None:
        super().__init__(lambda: (one, two))

    def __str__(self) -> str:
        return "cannot be sent"


@job(executor="process", retry=RetryPolicy(base=0.01, on=Unsendable))
def fail(kind: str) -> NoReturn:
    if kind == "unsendable":
        raise Unsendable(1, 2)
    if kind == "retry":
        raise Retry(after=3000, reason="not now")
    if kind == "discard":
        raise Discard("not at all")
    if kind == "sys.exit":
        sys.exit(3)
    if kind == "interrupt":
        raise KeyboardInterrupt
    raise ValueError("not worth a retry")


@job(executor="process", retry=0.01, max_retries=1)
async def afail() -> NoReturn:
    await asyncio.sleep(0)
    sys.exit(4)


# What it is given.


@job(executor="process")
def follow_up(ctx: JobContext, value: int) -> str:
    return str(ctx.queue.enqueue(echo, value=value))


@job(executor="process")
async def afollow_up(ctx: JobContext, value: int) -> str:
    return str(await ctx.queue.enqueue(echo, value=value))


@job(executor="process")
def progress(ctx: JobContext, seen: str, enough: str) -> None:
    ctx.progress(1, message="the first word")
    while not Path(seen).exists():
        time.sleep(0.01)
    for step in range(1000):
        ctx.progress(step, 1000, "counting")
    ctx.progress(7, 9, "the last word")
    while not Path(enough).exists():
        time.sleep(0.01)


@job(executor="process")
def describe(ctx: JobContext) -> list[object]:
    return [ctx.job.id, ctx.job.worker_id, ctx.job.attempts, ctx.cancelled]


@job(executor="process")
def say(ctx: JobContext) -> None:
    ctx.logger.info("at %s", "work")
    logging.getLogger("myapp").info("more", extra={"mine": {"a": [1, Path("b")]}})
    logging.getLogger("myapp.quiet").info("unheard")
    logging.getLogger("myapp.loud").debug("heard")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("myapp").exception("caught")


@job(executor="process")
def environment(name: str) -> list[Any]:
    command = Path("/proc/self/cmdline").read_text()
    initial = Path("/proc/self/environ").read_text()
    return [os.environ.get(name), os.environ.get("PYTHONPATH"), command + initial]


# What it leaves behind.


@job(executor="process")
def print_something() -> None:
    print("printed", "x" * 100_000)  # noqa: T201


@job(executor="process")
def close_stdout() -> None:
    sys.stdout.close()
    os.close(1)


@job(executor="process")
def leave_threads() -> int:
    for daemon in (True, False):
        threading.Thread(target=lambda: time.sleep(600), daemon=daemon).start()
    return os.getpid()


def _log_and_square(number: int) -> int:
    logging.getLogger("myapp").warning("in a fork")
    return number * number


@job(executor="process")
def use_a_pool(method: str) -> list[int]:
    with multiprocessing.get_context(method).Pool(2) as pool:  # left by `terminate`
        return pool.map(_log_and_square, range(50))


@job(executor="process", timeout=15, max_retries=0)
def terminate_forks(times: int) -> int:
    """End forks as soon as they are made."""
    ends: set[int] = set()
    for _ in range(times):
        child = os.fork()
        if child == 0:
            time.sleep(600)
        os.kill(child, signal.SIGTERM)
        ends.add(os.waitpid(child, 0)[1])
    return ends.pop() if len(ends) == 1 else -1


@job(executor="process")
def start_a_worker(address: str) -> None:
    from tests.support.storages import storage_at

    with storage_at(address) as storage:
        Worker(JobQueue(storage)).start()


@job(executor="process")
def signal_myself(number: int) -> int:
    os.kill(os.getpid(), number)
    time.sleep(0.1)
    return os.getpid()


def made(factor: int) -> Callable[[int], int]:
    """A function that only its maker has."""

    @job(executor="process", name=f"apart.times_{factor}", max_retries=0)
    def times(value: int) -> int:
        return factor * value

    return times


def _passes_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@job(executor="process")
@_passes_on
async def disguised(n: int) -> int:
    await asyncio.sleep(0)
    return n + 1


@job(executor="process", max_retries=0)
@_passes_on
def not_run() -> Iterator[int]:
    yield 1
