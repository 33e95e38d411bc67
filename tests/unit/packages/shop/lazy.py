"""A module that is imported when a job asks for it, and registers."""

from dbjobq import job


@job
def registered() -> str:
    return "lazy"


def unregistered() -> None: ...
