"""The deliberate breaks still fit the code: each one's text stands where it says, once."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.breaks import BREAKS, Break
from tests.mutants import ROOT, apply

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("it", BREAKS, ids=lambda it: it.name)
def test_a_break_fits_the_code(it: Break, tmp_path: Path) -> None:
    (tmp_path / it.file).parent.mkdir(parents=True)
    shutil.copy(ROOT / it.file, tmp_path / it.file)
    apply(it, tmp_path)
    assert (tmp_path / it.file).read_text() != (ROOT / it.file).read_text()
    assert all((ROOT / test.partition("::")[0]).is_file() for test in it.tests)


def test_their_names_tell_them_apart() -> None:
    assert [name for name, count in Counter(it.name for it in BREAKS).items() if count > 1] == []
