"""Requests of other threads to the heartbeat's thread: send a heartbeat, or ask the database something quick."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from dbjobq.storage.worker_port import Pulse

__all__ = ["Inbox"]


class Inbox:
    """Anybody puts in, from any thread, and the heartbeat takes out: neither needs to know the other."""

    def __init__(self) -> None:
        self.bell = threading.Event()
        """Set when something was put in: it ends the heartbeat's pause."""
        self.beat_wanted = False
        self.doubted: SimpleQueue[str] = SimpleQueue()
        self.questions: SimpleQueue[Callable[[Pulse], None]] = SimpleQueue()

    def beat_soon(self) -> None:
        """Have the worker beat at once, whatever it holds: the lease runs out sooner than it should."""
        self.beat_wanted = True
        self.bell.set()

    def doubt(self, job_id: str) -> None:
        """Have the database asked whether a job that may run here is still held: a notice says that it was cancelled.

        Anybody can send a notice, also late: the table has the last word.
        """
        self.doubted.put(job_id)
        self.bell.set()

    def ask(self, question: Callable[[Pulse], None]) -> None:
        """Have a question asked over the heartbeat's connection; it must be one that is answered at once."""
        self.questions.put(question)
        self.bell.set()
