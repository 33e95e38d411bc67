"""The Python blocks of a page, so that what it shows is what runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "python_blocks"]

ROOT: Final = Path(__file__).parents[2]


def python_blocks(page: str) -> list[str]:
    """Return them in their order; the page's path begins at the checkout."""
    found: list[str] = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return found
