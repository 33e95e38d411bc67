"""docs/testing.md: the test module that the page is passes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.page import python_blocks


@pytest.mark.slow  # it starts a server of its own, as its readers do
def test_the_page_is_a_test_module_that_passes(tmp_path: Path) -> None:
    text = "\n\n".join(python_blocks("docs/testing.md"))
    (tmp_path / "test_jobs.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_jobs.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{len(re.findall(r'^def test_', text, re.MULTILINE))} passed" in ran.stdout
