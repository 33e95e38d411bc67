"""What a worker and the process of a job say to each other: tuples of plain values, each after its length.

As `marshal` has them: both ends are the same interpreter, what is no plain value is refused where it is sent, and
reading it imports and runs nothing. The worker's end is a protocol of its loop (`processes`), the job's end a socket
that threads wait on (`child`).

    setup     what the process is to be like; first, and once        run       a claim, and where its function is
    cancel    what runs is not wanted any more
    started   the function is found, and called now                  progress  what it says of itself, for which claim
    log       a line that it logs                                    done      the outcome
"""

from __future__ import annotations

import marshal
import socket
import struct
import threading
from typing import Any, ClassVar, Final, TypedDict

__all__ = ["CUT", "Channel", "Frames", "Setup", "frame"]

CUT: Final = 113
"""The exit code of a process that cannot say what came of its job: the function has closed the connection."""

_LENGTH: Final = struct.Struct("!I")


class Setup(TypedDict):
    """What makes a process like its worker's, as far as functions can tell."""

    path: list[str]
    """Where Python looks for modules. It has it in its environment, too, but need not look there (`-I`)."""
    argv: list[str]
    pythonpath: str | None
    """The environment's own, which is another while the process starts."""
    levels: dict[str, int]
    """Of loggers."""
    imports: list[str]
    worker_id: str
    unknown_within: float
    recipe: tuple[Any, ...] | None
    """Of the storage; None if it is in the worker's memory."""


def frame(*message: Any) -> bytes:
    """Return a message as it is sent. Raises ValueError if something in it is no plain value."""
    body = marshal.dumps(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Puts messages together from bytes as they come."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def add(self, data: bytes) -> list[tuple[Any, ...]]:
        """Return the messages that are complete now."""
        self._buffer += data
        messages: list[tuple[Any, ...]] = []
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                break
            messages.append(marshal.loads(self._buffer[_LENGTH.size : end]))  # noqa: S302 - from a process of our own
            del self._buffer[:end]
        return messages


class Channel:
    """The job's end; any thread may send, one receives.

    Args:
        inherited: The socket that the worker has handed over.
    """

    is_here: ClassVar[bool] = False
    """This is the process of a job."""

    def __init__(self, inherited: socket.socket) -> None:
        Channel.is_here = True
        self._socket, self._frames = inherited, Frames()
        self._socket.set_inheritable(False)  # what jobs start must not hold it open
        self._sending = threading.Lock()

    def send(self, *message: Any) -> None:
        """Send a message. Raises OSError if the connection is closed."""
        data = frame(*message)
        with self._sending:
            self._socket.sendall(data)

    def receive(self) -> list[tuple[Any, ...]]:
        """Wait for messages; none comes back when the worker has closed its end."""
        while data := self._socket.recv(1 << 18):
            if messages := self._frames.add(data):
                return messages
        return []

    def close(self) -> None:
        """Close this process's end."""
        self._socket.close()
