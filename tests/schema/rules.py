"""What a migration may do to tables at work (docs/migrations.md), as far as its text tells."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Text", "broken_rules"]


class Text(NamedTuple):
    """A migration as it is written."""

    revision: str
    compatible_from: str
    upgrade: tuple[str, ...]
    downgrade: tuple[str, ...] = ()

    def digest(self) -> str:
        """A number that changes with what it does, and not with what it says of it."""
        return sha256("\0".join((self.compatible_from, *self.upgrade, *self.downgrade)).encode()).hexdigest()[:16]


MADE: Final = re.compile(r"^create table (?:if not exists )?\{schema\}\.(\w+)")
CHANGED: Final = re.compile(
    r"^(?:alter table|create or replace view|drop (?:table|view)) (?:if exists )?(?:only )?\{schema\}\.(\w+)"
    r"|^create (?:unique )?index (?:if not exists )?\w+ on \{schema\}\.(\w+)"
)

VOLATILE: Final = r"\bdefault\b.*\b(clock_timestamp|statement_timestamp|random|nextval|gen_random_uuid|uuidv\d)\b"

FORBIDDEN: Final = (
    (r"^create (unique )?index (?!concurrently)", "an index on a table at work is made concurrently"),
    (r"\balter (column )?\w+ (set data )?type\b", "a new type rewrites the table: add a column, and fill it"),
    (r"\bset not null\b", "reads the whole table: add a check … not valid, validate it, and leave it at that"),
    (
        r"\badd column\b(?!.*\bdefault\b).*\bnot null\b",
        "a column that is not null needs a default: the old insert no value",
    ),
    (rf"\badd column\b.*({VOLATILE}|\bgenerated\b|\b(small|big)?serial\b)", "a value for each row rewrites the table"),
    (r"\badd (constraint|check|foreign key|unique|primary key)\b(?!.*\b(not valid|using index)\b)", "add it not valid"),
)
"""Of a table that is there already."""
NEVER: Final = (
    (r"^drop index (?!concurrently)", "an index is dropped concurrently"),
    (
        r"^(vacuum|cluster|lock|truncate)\b|^reindex (?!index concurrently)",
        "keeps everybody out for as long as it takes",
    ),
)
DROPS: Final = re.compile(r"\bdrop (column|table|view|sequence)\b")
CONCURRENTLY: Final = re.compile(r"^(create( unique)?|drop|reindex) index concurrently\b")


def plain(statement: str) -> str:
    """A statement in one line, in small letters, without comments."""
    return " ".join(re.sub(r"--.*", "", statement).lower().split())


def broken_rules(migration: Text, before: str | None = None) -> Iterator[str]:
    """Yield what is wrong with a migration.

    Args:
        migration: What to look at.
        before: `compatible_from` of the one before.
    """
    if not (before or "") <= migration.compatible_from <= migration.revision:
        yield f"compatible_from is from {before} to {migration.revision}"
    statements = [plain(statement) for statement in migration.upgrade]
    made = {found[1] for statement in statements if (found := MADE.match(statement))}
    concurrent = [bool(CONCURRENTLY.match(statement)) for statement in statements]
    if any(concurrent) and not all(concurrent):
        yield "what is done concurrently is not undone with the rest, and stands alone"
    changed = {found[1] or found[2] for statement in statements if (found := CHANGED.match(statement))} - made
    if len(changed) > 1:
        yield f"one table at work in each migration, not {', '.join(sorted(changed))}: its users lock several, too"
    for statement in statements:
        found = CHANGED.match(statement)
        of_old = found is not None and (found[1] or found[2]) in changed
        for pattern, why in (*(FORBIDDEN if of_old else ()), *NEVER):
            if re.search(pattern, statement):
                yield f"{why}: {statement}"
        if " rename " in statement and migration.compatible_from != migration.revision:
            yield f"no release runs on both, so compatible_from is {migration.revision}: {statement}"
        if DROPS.search(statement) and migration.compatible_from == before:
            yield f"releases that use it do not run without it, so compatible_from is above {before}: {statement}"
