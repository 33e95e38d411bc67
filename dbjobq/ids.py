"""The ids of jobs: UUIDv7 as text, which sorts by creation. Pure but for the clock and the chance in them."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator, Sequence
from operator import eq
from typing import Self, cast, overload

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils import uuid7

__all__ = ["JobIds", "as_uuid", "new_id"]


def new_id() -> str:
    """Return a new UUIDv7 as text. Ids of one process sort in the order in which they were made."""
    return str(uuid7())


def as_uuid(value: object, what: str = "id") -> str:
    """Return a UUID's canonical text.

    Args:
        value: A `uuid.UUID` or its text, in any form `uuid.UUID` reads.
        what: How errors call the value.

    Raises:
        TypeError: The value is neither.
        ValueError: The text is not a UUID's.
    """
    if isinstance(value, uuid.UUID):
        return str(value)
    if not isinstance(value, str):
        raise TypeError(f"{what}={value!r}: must be a UUID or its text, not {type(value).__name__}")
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise ValueError(f"{what}={value!r}: is not a UUID") from None


class JobIds(Sequence[str]):
    """The ids of jobs that were enqueued together, in order: a sequence of constant size, however long it is.

    The ids are consecutive UUIDv7s, so the first and their number are enough. Equal to any sequence of the same ids.
    """

    __slots__ = ("_numbers", "_prefix")

    def __init__(self, prefix: str, numbers: range) -> None:
        self._prefix, self._numbers = prefix, numbers

    @classmethod
    def new(cls) -> Self:
        """Return an empty sequence with a first id to begin at; `grown` makes it longer."""
        while (first := new_id())[24:26] == "ff":  # so that 2 ** 40 of them carry nothing into the next group
            pass
        start = int(first[24:], 16)
        return cls(first[:24], range(start, start))

    def grown(self, by: int) -> Self:
        """Return these ids and `by` more, which follow them."""
        return type(self)(self._prefix, range(self._numbers.start, self._numbers.stop + by))

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        prefix = self._prefix
        return (f"{prefix}{number:012x}" for number in self._numbers)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        prefix, found = self._prefix, self._numbers[at]
        return f"{prefix}{found:012x}" if isinstance(found, int) else [f"{prefix}{n:012x}" for n in found]

    def __add__(self, other: Sequence[str]) -> list[str]:
        return [*self, *other]

    def __radd__(self, other: Sequence[str]) -> list[str]:
        return [*other, *self]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        theirs = cast("Sequence[object]", other)
        return len(self) == len(theirs) and all(map(eq, self, theirs))

    __hash__ = None  # type: ignore[assignment] # as a list's, which it may be equal to

    def __repr__(self) -> str:
        shown = [*map(repr, self[:3]), *["…"] * (len(self) > 3)]
        return f"<{len(self)} job ids: {', '.join(shown)}>"
