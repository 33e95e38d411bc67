"""docs/deploying.md: its commands are ones that dbjobq takes, and each is given more time than it asks for."""

from __future__ import annotations

import re
import shlex
from typing import Any, Final

import click
import pytest

from dbjobq.cli import main
from tests.support.page import ROOT

TEXT: Final = (ROOT / "docs/deploying.md").read_text()
BLOCKS: Final = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
LISTED: Final = re.findall(r"command: \[(.*)\]", TEXT)
"""Commands as YAML has them, word by word."""
COMMANDS: Final = [
    *re.findall(r"^ExecStart=/\S+/dbjobq (.*)$", TEXT, re.MULTILINE),
    *re.findall(r"^(?:release|worker): dbjobq (.*)$", TEXT, re.MULTILINE),
    *(words.replace(",", " ").partition("dbjobq")[2].strip() for words in LISTED),
]


def parsed(command: str) -> dict[str, Any]:
    """What a command line of dbjobq means; raises what the command line would say."""
    name, *words = shlex.split(command)
    assert isinstance(main, click.Group)
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found.make_context(name, words).params


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_is_one(command: str) -> None:
    parsed(command)


def test_no_command_is_passed_over() -> None:
    assert len(COMMANDS) == 5


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("ini", r"TimeoutStopSec=(\d+)"),
        ("yaml", r"terminationGracePeriodSeconds: (\d+)"),
        ("procfile", r"SIGKILL\s+(\d+)\s+seconds later"),
    ],
)
def test_more_time_is_given_than_the_worker_takes(kind: str, given: str) -> None:
    (block,) = [text for name, text in BLOCKS if name == kind and "worker" in text]
    (line,) = [text for text in block.splitlines() if "dbjobq" in text and "worker" in text]
    takes = parsed(line.replace(",", " ").replace("]", "").partition("dbjobq ")[2])["shutdown_timeout"]
    (seconds,) = re.findall(given, TEXT)
    assert takes + 5 < float(seconds)


def test_what_the_page_says_of_compose_stands_there() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    for line in re.findall(r"What matters in it: `(.*?)`, `(.*?)`", TEXT)[0]:
        assert line in compose
    assert "tini" in (ROOT / "Dockerfile").read_text()
