"""State is small: a class of the runtime can be read on a few screens, and kept in mind."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import dbjobq.runtime

LINES: Final = 250
ATTRIBUTES: Final = 12


def classes() -> Iterator[ast.ClassDef]:
    for path in sorted(Path(dbjobq.runtime.__file__).parent.rglob("*.py")):
        yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef))


def attributes(kind: ast.ClassDef) -> set[str]:
    """What its methods set on `self`, and what its body declares."""
    stores = (node for node in ast.walk(kind) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store))
    found = {node.attr for node in stores if isinstance(node.value, ast.Name) and node.value.id == "self"}
    declared = (node.target for node in kind.body if isinstance(node, ast.AnnAssign))
    return found | {target.id for target in declared if isinstance(target, ast.Name)}


@pytest.mark.parametrize("kind", list(classes()), ids=lambda kind: kind.name)
def test_a_class_of_the_runtime_is_small(kind: ast.ClassDef) -> None:
    assert kind.end_lineno is not None
    assert kind.end_lineno - kind.lineno + 1 <= LINES
    assert len(attributes(kind)) <= ATTRIBUTES, sorted(attributes(kind))
