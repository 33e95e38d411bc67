"""Every link between the pages, and from them to files of the repository, leads to something that is there."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.support.page import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
OTHERS = {"CHANGELOG.md", "worker.md", "testing.md", "frameworks.md", "changing-jobs.md"}
"""Pages that name files which were there, or are their readers' own."""
ROOMS = [ROOT / name for name in ("dbjobq", "tests", "migrations", "examples", ".ci")]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """A page without its code, in which brackets mean something else."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", lambda code: "x" * len(code[0]), text)


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as the site and the usual forges make them."""
    text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.*?)(?: *\{#([\w-]+)\})?$", text, re.MULTILINE)
    made = {re.sub(r"[\s]", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title, _ in headings}
    return made | {given for _, given in headings if given}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        leads_to = (page.parent / path).resolve() if path else page
        assert leads_to.exists(), f"{target}: there is no {leads_to}"
        if anchor:
            assert anchor in anchors(leads_to), f"{target}: {leads_to.name} has {sorted(anchors(leads_to))}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in OTHERS], ids=lambda page: page.name)
def test_the_files_that_a_page_names_are_there(page: Path) -> None:
    named = set(re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|sql))`", page.read_text()))
    missing = {path for path in named if not ((ROOT / path).exists() or any([*place.rglob(path)] for place in ROOMS))}
    assert missing == set()


def test_every_decision_stands_in_their_list() -> None:
    listed = re.findall(r"\((\d{4}-[\w-]+\.md)\)", (ROOT / "docs/decisions/index.md").read_text())
    assert listed == [page.name for page in PAGES if page.parent.name == "decisions" and page.name != "index.md"]


def test_every_page_is_reached_from_the_sites_navigation() -> None:
    """A page that is not would be found by nobody; decisions are reached by their list."""
    shown = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    pages = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/*.md")} | {"decisions/index.md"}
    assert shown == pages
