from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from dbjobq.errors import ConfigError
from dbjobq.imports import import_modules

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


def why(name: str) -> str:
    with pytest.raises(ConfigError) as refused:
        import_modules([name])
    return str(refused.value)


def test_a_missing_module_is_named() -> None:
    assert "there is no module 'cli_nowhere'" in why("cli_nowhere.jobs")


def test_a_file_s_name_is_answered_with_the_module_s() -> None:
    assert why("./app/jobs.py").endswith("such as 'app.jobs'")


def test_a_module_that_raises_is_named_with_the_place(here: Path) -> None:
    (here / "cli_raises.py").write_text("x = 1\ny = 1 / 0\n")
    said = why("cli_raises")
    assert "ZeroDivisionError: division by zero" in said
    assert said.endswith("cli_raises.py, line 2)")


def test_what_a_module_lacks_is_not_taken_for_the_module(here: Path) -> None:
    (here / "cli_lacks.py").write_text("import cli_dependency\n")
    assert "ModuleNotFoundError: No module named 'cli_dependency'" in why("cli_lacks")


def test_a_module_with_wrong_syntax_is_named(here: Path) -> None:
    (here / "cli_syntax.py").write_text("x = (\n")
    assert "SyntaxError: '(' was never closed (cli_syntax.py, line 1)" in why("cli_syntax")
