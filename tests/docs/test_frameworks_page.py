"""docs/frameworks.md: its examples are Python, and what they take from dbjobq is there.

The frameworks are not among what tests install: the page says with which versions its examples were tried.
"""

from __future__ import annotations

import ast

import pytest

import dbjobq
from dbjobq.queue.options import EnqueueOptions
from tests.support.page import python_blocks


@pytest.mark.parametrize("block", python_blocks("docs/frameworks.md"), ids=lambda block: block.partition("\n")[0])
def test_what_an_example_uses_is_there(block: str) -> None:
    tree = ast.parse(block)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "dbjobq"]
    assert {alias.name for node in imports for alias in node.names} <= set(dbjobq.__all__)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "options":
            assert {keyword.arg for keyword in call.keywords} <= set(EnqueueOptions.__annotations__)
