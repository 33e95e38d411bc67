"""Which files the demo reads."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["standard_library", "text_files"]

LARGEST_BYTES: Final = 2 << 20
SKIPPED: Final = frozenset({"__pycache__", "site-packages", "dist-packages", "node_modules"})


def standard_library() -> Path:
    """Return where Python's own modules are: a real tree of files that every machine with this library has."""
    return Path(sysconfig.get_path("stdlib"))


def text_files(root: Path) -> Iterator[Path]:
    """Yield the text files below `root`, in order; nothing hidden, installed, linked or beyond 2 MiB."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in SKIPPED and not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and _is_text(path):
                yield path


def _is_text(path: Path) -> bool:
    """Tell as git does: a text has no NUL at its beginning."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST_BYTES:
            return False
        with path.open("rb") as file:
            return b"\0" not in file.read(8000)
    except OSError:
        return False
