"""Importing the modules that a worker or a command line names, with one clear line where that fails."""

from __future__ import annotations

import importlib
import logging
import sys
import traceback
from collections.abc import Iterable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

from dbjobq.errors import ConfigError

__all__ = ["hear_again", "import_modules", "import_script"]


def import_modules(names: Iterable[str], folder: Path | None = None) -> None:
    """Import modules.

    Args:
        names: The modules' names.
        folder: Another folder to look in, before those that Python looks in.

    Raises:
        ConfigError: A module cannot be imported. The message says which, and why.
    """
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise ConfigError(f"cannot import {name!r}: {_why(name, error)}") from error
    hear_again()


def hear_again() -> None:
    """Enable dbjobq's loggers after an import: `logging.config`, by its defaults, disables all existing loggers."""
    for name, logger in tuple(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] == "dbjobq" and isinstance(logger, logging.Logger):
            logger.disabled = False


def import_script(name: str, file: str) -> None:
    """Import the file that another process runs as its program, without the part under `if __name__ == "__main__":`.

    Args:
        name: The script's name, as `registry.home_of` has it. A loaded module of that name stays what it is.
        file: The script's path.

    Raises:
        ConfigError: The script cannot be imported. The message says why.
    """
    loader = SourceFileLoader(name, file)
    spec = spec_from_loader(name, loader)
    assert spec is not None  # noqa: S101 - it is, with such a loader
    module = module_from_spec(spec)
    known = sys.modules.setdefault(name, module)
    try:
        loader.exec_module(module)
    except BaseException as error:
        if known is module:
            del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise ConfigError(f"cannot import the script {file}: {_why(name, error)}") from error
    hear_again()


def _why(name: str, error: Exception) -> str:
    if name.endswith(".py") or "/" in name:
        return f"write a module, not a file, such as {name.removesuffix('.py').strip('./').replace('/', '.')!r}"
    if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
        return f"there is no module {error.name!r} in {Path.cwd()} or where Python looks for modules"
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"
    return f"{type(error).__name__}: {error}{where}"
