"""README.md: the first job that it shows is one that a reader gets, word for word."""

from __future__ import annotations

import re

from tests.support.console import Console
from tests.support.page import ROOT

README = (ROOT / "README.md").read_text()


def test_the_first_job_goes_as_the_readme_shows_it(empty_dsn: str) -> None:
    (block,) = re.findall(r"<!-- first job -->\n```console\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    Console(ROOT, {"DBJOBQ_DSN": empty_dsn, "DATABASE_URL": ""}).play(block)


def test_the_function_that_the_readme_shows_is_that_of_the_example() -> None:
    (block,) = re.findall(r"```python\n(@job\ndef greet.*?)^```$", README, re.MULTILINE | re.DOTALL)
    example = (ROOT / "examples/tasks.py").read_text()
    for line in block.splitlines():
        assert line.partition("  # ")[0] in example, line
