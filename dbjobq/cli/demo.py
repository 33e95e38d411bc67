"""`dbjobq demo`: the queue at work on real files; the story is in `dbjobq.demo`."""

from __future__ import annotations

import click

__all__ = ["demo"]


@click.command()
def demo() -> None:
    """Stub."""
