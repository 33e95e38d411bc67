"""The messages between a worker and the process of a job: tuples of plain values, each after its length.

Messages are packed by `marshal`: both ends are the same interpreter, a value that is not plain is refused where it is
sent, and reading a message imports and runs nothing. The worker's end is a protocol of its event loop (`process`), the
job's end a socket that threads wait on (`child`).

    setup     settings of the process; first, and once               run       a claim, and where its function is
    cancel    the running job is not wanted any more
    started   the function is found, and called now                  progress  a job's progress, with its claim
    log       a line that the job logs                               done      the outcome
"""

from __future__ import annotations

import marshal
import socket
import struct
import threading
from typing import Any, ClassVar, Final, TypedDict

__all__ = ["CUT", "Channel", "Frames", "Setup", "frame"]

CUT: Final = 113
"""The exit code of a process that cannot send its job's outcome, since the function has closed the connection."""

_LENGTH: Final = struct.Struct("!I")


class Setup(TypedDict):
    """The settings that make a process like its worker's, as far as functions can tell."""

    path: list[str]
    """The folders in which Python looks for modules. The environment names them, too, but with `-I` it is ignored."""
    argv: list[str]
    pythonpath: str | None
    """The worker's PYTHONPATH, which is another while the process starts."""
    levels: dict[str, int]
    """The levels of loggers."""
    imports: list[str]
    worker_id: str
    unknown_within: float
    middleware: list[tuple[str, str | None, str]]
    """The worker's own: where each function is (module; file, if that is a script), and its name there."""
    recipe: tuple[Any, ...] | None
    """The storage's recipe; None if the storage is in the worker's memory."""


def frame(*message: Any) -> bytes:
    """Return a message's bytes. Raises ValueError if one of its values is not plain."""
    body = marshal.dumps(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Puts messages together from bytes as these arrive."""

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
    """The end of the job's process; any thread may send, one thread receives.

    Args:
        inherited: The socket that the worker has handed over.
    """

    is_here: ClassVar[bool] = False
    """Whether the running process is a job's."""

    def __init__(self, inherited: socket.socket) -> None:
        Channel.is_here = True
        self._socket, self._frames = inherited, Frames()
        self._socket.set_inheritable(False)  # programs that jobs start must not hold it open
        self._sending = threading.Lock()

    def send(self, *message: Any) -> None:
        """Send a message. Raises OSError if the connection is closed."""
        data = frame(*message)
        with self._sending:
            self._socket.sendall(data)

    def receive(self) -> list[tuple[Any, ...]]:
        """Wait for messages and return them; an empty list when the worker has closed its end."""
        while data := self._socket.recv(1 << 18):
            if messages := self._frames.add(data):
                return messages
        return []

    def close(self) -> None:
        """Close this process's end."""
        self._socket.close()
