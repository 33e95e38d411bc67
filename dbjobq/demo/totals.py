"""Sums over all files. Pure, and the same for the jobs' results and for a plain loop over the files."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from dbjobq.demo.jobs import Facts

__all__ = ["Totals", "total"]

TOP: Final = 5


class Totals(NamedTuple):
    """The sums over all files."""

    files: int
    size_bytes: int
    lines: int
    words: int
    most_used: tuple[tuple[str, int], ...]
    """The identifiers that occur most often, with their counts."""
    digest: str
    """A digest of all files' digests and paths: equal for equal bytes."""


def total(facts: Iterable[tuple[str, Facts]]) -> Totals:
    """Return the totals of pairs (path, facts), in whatever order they come."""
    files = sorted(facts, key=lambda pair: pair[0])
    identifiers: Counter[str] = Counter()
    digest = hashlib.sha256()
    for path, found in files:
        identifiers.update(found["identifiers"])
        digest.update(f"{found['digest']}  {path!r}\n".encode())
    ranked = sorted(identifiers.items(), key=lambda item: (-item[1], item[0]))
    return Totals(
        files=len(files),
        size_bytes=sum(found["size_bytes"] for _, found in files),
        lines=sum(found["lines"] for _, found in files),
        words=sum(found["words"] for _, found in files),
        most_used=tuple(ranked[:TOP]),
        digest=digest.hexdigest(),
    )
