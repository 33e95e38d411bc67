"""A module outside every package that is named."""

from dbjobq import job


@job
def outside() -> None: ...
