"""The command line: one module a command. Commands read settings, print, and exit; the work is done in other rooms."""

from dbjobq.cli.group import main

__all__ = ["main"]
