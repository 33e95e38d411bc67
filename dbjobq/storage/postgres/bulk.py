"""Rows for COPY: text, made piece by piece while the server works on the piece before.

A chunk of jobs goes into two tables, so by two COPYs: the bodies, then the rows that place them in a queue. The latter
cost little to make, so the next chunk's bodies are begun meanwhile: neither client nor server waits for the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count, islice
from typing import ClassVar, Final, NamedTuple

from dbjobq.ids import JobIds
from dbjobq.storage.values import NewJob

__all__ = ["BulkRows"]

PIECE: Final = 250
"""Jobs in a piece, which is sent at once: some 50 kB, about as much as a socket's buffer holds."""
PIECES: Final = 20
"""Pieces in one COPY."""
AHEAD: Final = 8
"""Pieces of bodies that are made while the places of the chunk before are written."""

_NULL: Final = "\\N"
_SLASH: Final = "\\"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class _Piece(NamedTuple):
    rows: int
    text: bytes


class BulkRows:
    """The rows of many jobs: `bodies` makes the next chunk's bodies, `places` the rows that place them in a queue.

    Args:
        like: A job with all that they have in common.
        queue: The number of their queue.
        position: The first job's position; each of the others has the next one.
        due: When they are due, as text; None for at once.
        later: Whether `due` is in the future.
        data: The data of each job: JSON, so ASCII without control characters.
    """

    BODY: ClassVar = "position, id, execute_at, queue, priority, max_retries, type, timeout, data"
    READY: ClassVar = "position, job_id, queue, priority"
    SCHEDULED: ClassVar = "enqueued, job_id, queue, priority, run_at"

    def __init__(  # noqa: PLR0913 - what a row consists of
        self, like: NewJob, *, queue: int, position: int, due: str | None, later: bool, data: Iterable[str]
    ) -> None:
        self.ids = JobIds.new()
        """The ids of all jobs whose rows were made; at the end the ids of all jobs."""
        self._position, self._data, self._chunk = position, iter(data), range(0)
        self._ahead: deque[_Piece] = deque()
        place = f"\t{queue}\t{like.priority}"
        self._place = f"{place}\t{due}" if later else place
        timeout = _NULL if like.timeout is None else repr(like.timeout)
        type_ = like.type.translate(_ESCAPES)
        self._options = f"\t{due or _NULL}{place}\t{like.max_retries}\t{type_}\t{timeout}\t"

    @property
    def more(self) -> bool:
        """Tell whether there may be another chunk."""
        return len(self._chunk) == PIECE * PIECES

    def bodies(self) -> Iterator[bytes]:
        """Yield a chunk's rows of `job`, made as they are taken."""
        begin = end = self._chunk.stop
        for _ in range(PIECES):
            piece = self._ahead.popleft() if self._ahead else self._make()
            end += piece.rows
            yield piece.text
            if piece.rows < PIECE:
                break
        self._chunk = range(begin, end)

    def places(self) -> Iterator[bytes]:
        """Yield the rows of `ready` or `scheduled` for the chunk's bodies."""
        for begin in self._chunk[::PIECE]:
            ids = self.ids[begin : min(begin + PIECE, self._chunk.stop)]
            yield "".join([f"{at}\t{i}{self._place}\n" for at, i in enumerate(ids, self._position + begin)]).encode()
            if len(self._ahead) < AHEAD and self.more:
                self._ahead.append(self._make())

    def _make(self) -> _Piece:
        options, begin = self._options, len(self.ids)
        data = list(islice(self._data, PIECE))
        self.ids = self.ids.grown(len(data))
        rows = zip(count(self._position + begin), self.ids[begin:], data, strict=False)
        lines = [f"{at}\t{i}{options}{text.replace(_SLASH, _SLASH * 2)}\n" for at, i, text in rows]
        return _Piece(len(data), "".join(lines).encode())
