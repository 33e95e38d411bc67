"""The words of the package: docstrings that can be read alone, and constants that a search tells apart."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.page import ROOT

MODULES: Final = sorted((ROOT / "dbjobq").rglob("*.py"))
NEEDS_ANOTHER: Final = re.compile(r"(?:It|These|This|So|That|Of|What)\b")
"""Begins of docstrings that say nothing without the sentence before: a hover shows them alone."""
CONSTANT: Final = re.compile(r"[A-Z][A-Z0-9_]+")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_docstring_can_be_read_alone(module: Path) -> None:
    assert [text for text in docstrings(module) if NEEDS_ANOTHER.match(text)] == []


def test_no_two_modules_have_a_constant_of_one_name() -> None:
    where: dict[str, list[str]] = defaultdict(list)
    for module in MODULES:
        for name in constants(module):
            where[name].append(str(module.relative_to(ROOT)))
    assert {name: modules for name, modules in where.items() if len(modules) > 1} == {}


def docstrings(module: Path) -> Iterator[str]:
    """Yield the docstrings of a module, its classes, functions and attributes."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for statement in node.body:
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    yield str(statement.value.value).strip()


def constants(module: Path) -> Iterator[str]:
    """Yield the names in capitals that a module defines."""
    for statement in ast.parse(module.read_text()).body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        for target in targets:
            for node in ast.walk(target):
                if isinstance(node, ast.Name) and CONSTANT.fullmatch(node.id):
                    yield node.id
