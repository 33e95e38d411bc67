"""A module in a directory without an `__init__.py`."""

from dbjobq import job


@job
def registered() -> str:
    return "lazy"
