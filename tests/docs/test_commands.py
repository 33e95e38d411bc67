"""Every `dbjobq …` that a page shows is a command line that dbjobq takes: no option is gone, or was never there."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from pathlib import Path

import click
import pytest

from dbjobq.cli import main
from tests.support.page import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
SPAN = re.compile(r"`(dbjobq [^`\n]+)`")
LINE = re.compile(r"^(?:\$ )?(?:\S*/)?(dbjobq (?!@).*)$", re.MULTILINE)


def commands(page: Path) -> list[str]:
    """The command lines of a page; in a block, without the comment behind them."""
    text = page.read_text()
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found = [*SPAN.findall(re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))]
    for block in blocks:
        found += LINE.findall(block)
    return [command for command in found if not re.search("…|COMMAND", command)]


def parse(words: list[str]) -> None:
    """Parse what stands behind `dbjobq`; raises what the command line would say. Arguments may be left out."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        command, words = found, words[1:]
    if not isinstance(command, click.Group):
        with suppress(click.MissingParameter, click.BadOptionUsage, click.exceptions.Exit):  # the last of --help
            command.make_context("dbjobq", words)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_are_taken(page: Path) -> None:
    for command in commands(page):
        words = [re.sub(r"^N$", "1", word) for word in shlex.split(command, comments=True)[1:]]
        try:
            parse(words)
        except click.ClickException as error:
            pytest.fail(f"{command}: {error.format_message()}")


def test_a_command_that_is_not_taken_is_noticed() -> None:
    for wrong in (["stats", "--exactly"], ["worker", "shop", "--concurrency", "0"]):
        with pytest.raises(click.UsageError):
            parse(wrong)
