"""A module that needs another, which is not there."""

# ruff: noqa: PLC0414 - what a user's module happens to have imported

import no_such_module_anywhere as no_such_module_anywhere  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]
