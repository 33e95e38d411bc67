"""Checks a site that was built from docs/: the user's page shows `Worker` with its source, and no link is broken.

python .ci/site.py build/site
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

MEMBERS = ("start", "stop", "join", "run", "current_job")
SOURCE = "threading.Thread(target=self.run"
"""A line of the source of `Worker`."""


class Page(HTMLParser):
    """One page: what it links to, the names in it that can be linked to, and its text."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()
        self.text = ""
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note links and names."""
        for key, value in attrs:
            if key in {"href", "src"} and value is not None:
                self.links.append(value)
            elif value is not None and (key == "id" or (key == "name" and tag == "a")):
                self.names.add(value)

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self.text += data


def broken(site: Path, pages: dict[Path, Page]) -> list[str]:
    """Return the links within the site that lead nowhere."""
    return [
        f"{file.relative_to(site)}: {link} leads nowhere"
        for file, page in pages.items()
        for link in page.links
        if not _leads_somewhere(site, file, link, pages)
    ]


def _leads_somewhere(site: Path, file: Path, link: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    path = unquote(parts.path)
    target = (site / path.lstrip("/") if path.startswith("/") else file.parent / path).resolve() if path else file
    target = target / "index.html" if target.is_dir() else target
    names = pages[target].names if target in pages else set()
    return target.exists() and (not parts.fragment or unquote(parts.fragment) in names)


def unshown(page: Page) -> list[str]:
    """Return what the user's page on `Worker` asks for (`::: dbjobq.worker.Worker`, with its source) and lacks."""
    names = [f"dbjobq.worker.Worker.{member}" for member in MEMBERS]
    missing = [*(name for name in names if name not in page.names), *([SOURCE] if SOURCE not in page.text else [])]
    return [f"worker/index.html: {name} is not shown" for name in missing]


def main(site: Path) -> None:
    """Check it; exit with what is wrong."""
    pages = {file: Page(file) for file in site.rglob("*.html") if file.name != "404.html"}
    if wrong := [*unshown(pages[site / "worker/index.html"]), *broken(site, pages)]:
        sys.exit("\n".join(wrong))
    print(f"{len(pages)} pages, {sum(len(page.links) for page in pages.values())} links")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
