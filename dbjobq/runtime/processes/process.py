"""One process for jobs with `executor="process"`, as its worker sees it: started, talked to, and brought to its end.

The process is a fresh interpreter that runs `child`, never a fork, since the worker has threads. It leads a process
group of its own, which ends with it, and with the worker (`child` sees to that).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

from dbjobq.errors import ProcessDied
from dbjobq.events.bus import emit
from dbjobq.events.names import JOB_PROCESS_DIED, JOB_PROCESS_STARTED
from dbjobq.jobs.registry import JobType, home_of
from dbjobq.runtime.processes.channel import CUT, Frames, Setup, frame
from dbjobq.signals import held_back
from dbjobq.storage.values import Claim, Outcome

__all__ = ["JobProcess", "Work"]

EXIT_GRACE: Final = 1.0
"""Seconds that an idle process gets to exit by itself; then it is killed."""
IDLE: Final = 300.0
"""Seconds that an idle process is kept."""

_MAIN: Final = "from dbjobq.runtime.processes.child import main; main()"


class Work:
    """One job of a process.

    Args:
        claim: The claim under which the job is held.
        on_progress: Called with the job's progress, as JSON text.
    """

    def __init__(self, claim: Claim, on_progress: Callable[[str], None]) -> None:
        self.claim, self.on_progress = claim, on_progress
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[None] = loop.create_future()
        """Done when the function is called, or never will be."""
        self.outcome: asyncio.Future[Outcome] = loop.create_future()
        """Raises ProcessDied."""

    def start(self) -> None:
        """Note that the function is called now."""
        if not self.started.done():
            self.started.set_result(None)

    def end(self, how: Outcome | ProcessDied) -> None:
        """Note that the job has ended, also if nobody waits for it any more."""
        self.start()
        if self.outcome.done():
            return
        if isinstance(how, ProcessDied):
            self.outcome.set_exception(how)
        else:
            self.outcome.set_result(how)


class JobProcess(asyncio.Protocol):
    """See the module.

    Args:
        mine: The worker's end of the socket to the process.
    """

    pid: int | None = None

    def __init__(self, mine: socket.socket) -> None:
        self._socket, self._frames = mine, Frames()
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._work: Work | None = None
        self._code: int | None = None
        self._ending = False
        self._end_at: asyncio.TimerHandle | None = None
        self.gone: asyncio.Future[None] = self._loop.create_future()
        """Done when the process has ended, and all of its messages have been read."""

    def spawn(self, theirs: socket.socket, setup: Setup) -> None:
        """Start the process, on the event loop that has made the connection.

        Its settings go through the socket: others can read a command line, and an environment.

        Raises:
            OSError: No process can be started.
        """
        inherited, lifeline = os.pipe()
        descriptors = [theirs.fileno(), inherited]
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 # pyright: ignore - there is no public name
        command: list[str] = [sys.executable, *flags, "-P", "-c", _MAIN, *map(str, [*descriptors, os.getpid()])]
        try:
            with held_back():
                process = subprocess.Popen(  # noqa: S603 - ourselves
                    command,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(setup["path"])},
                    stdin=subprocess.DEVNULL,
                    pass_fds=descriptors,
                    process_group=0,  # a Ctrl-C in the terminal is the worker's; and jobs' programs end with the group
                )
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            os.close(inherited)
        self.pid = process.pid
        threading.Thread(target=self._wait, args=(process, lifeline), name="dbjobq-child", daemon=True).start()
        emit(JOB_PROCESS_STARTED, pid=self.pid)
        self.send("setup", setup)

    def _wait(self, process: subprocess.Popen[bytes], lifeline: int) -> None:
        """Wait for the end of the process, in a thread."""
        self._code = process.wait()
        os.close(lifeline)
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # programs that its jobs have started
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)  # its last messages can still be read; a fork may hold the other end
        with suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(self._settle)

    @property
    def claim(self) -> Claim | None:
        """The claim of the job that the process works on; None if it has none."""
        work = self._work
        return None if work is None else work.claim

    @property
    def usable(self) -> bool:
        """Whether the process can take a job."""
        return self._work is None and self._transport is not None and not self._ending

    def begin(self, claim: Claim, task: JobType, on_progress: Callable[[str], None]) -> Work:
        """Hand the process a job."""
        if self._end_at is not None:
            self._end_at.cancel()
        self._work = work = Work(claim, on_progress)
        self.send("run", tuple(claim), *home_of(task.function))
        return work

    def send(self, *message: Any) -> None:
        """Send the process a message, unless it is dead; then `gone` tells."""
        if self._transport is not None:
            self._transport.write(frame(*message))

    # Its end.

    def end_later(self) -> None:
        """Let the process end after `IDLE` seconds without a job."""
        self._end_at = self._loop.call_later(IDLE, self.end)

    def end(self) -> None:
        """End the process: an idle one may exit by itself."""
        if self._work is not None:
            self.kill()
        elif self._transport is not None and not self._ending:
            self._ending = True
            self._transport.write_eof()
            self._loop.call_later(EXIT_GRACE, self.kill)  # threads of a job may hold it up

    def kill(self) -> None:
        """Kill the process, and the programs that its job has started."""
        self._ending = True
        self._kill()

    def _kill(self) -> None:
        if self.pid is not None and self._code is None:
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    def _settle(self) -> None:
        """Report the job's end once both the process's end and its last message are known."""
        if self.pid is None or self._code is None or self._transport is not None or self.gone.done():
            return
        if self._end_at is not None:
            self._end_at.cancel()
        if not self._ending:
            emit(JOB_PROCESS_DIED, pid=self.pid, code=self._code)
        if (work := self._work) is not None:
            work.end(ProcessDied(self.pid, _fate(self._code)))
        self.gone.set_result(None)

    # Messages of the process.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that the event loop has the socket now."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Handle messages of the process."""
        for kind, *said in self._frames.add(data):
            if kind == "log":
                with suppress(Exception):  # the user's log filters may raise
                    _log(said[0])
            elif (work := self._work) is None:
                continue
            elif kind == "started":
                work.start()
            elif kind == "progress" and said[0] == work.claim.claim:
                work.on_progress(said[1])
            elif kind == "done":
                self._work = None
                work.end(Outcome(work.claim, *said))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Kill the process, which has closed its end: it is of no more use, if it is not dead yet."""
        self._transport = None
        self._settle()
        self._kill()


def _log(fields: dict[str, Any]) -> None:
    """Log a line of the process as if it were this process's own."""
    record = logging.makeLogRecord(fields)
    log = logging.getLogger(record.name)
    if log.isEnabledFor(record.levelno):
        log.handle(record)


def _fate(code: int) -> str:
    """Return how a process ended, in words, from its exit code as `subprocess` has it."""
    if code == CUT:
        return "lost its connection to the worker: the function closed it"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}{', and not by its worker: out of memory?' if name == 'SIGKILL' else ''}"
