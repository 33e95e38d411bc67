"""A module that nobody named: its functions are no jobs."""


def imported() -> None: ...
