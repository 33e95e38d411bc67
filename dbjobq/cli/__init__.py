"""The command line: one module a command. It reads settings, prints, and exits; the work is done below it."""

from dbjobq.cli.group import main

__all__ = ["main"]
