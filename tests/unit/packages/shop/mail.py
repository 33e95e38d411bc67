"""A module that is named to a worker."""

# ruff: noqa: PLC0414 - what a user's module happens to have imported

import functools
import os
import subprocess
from shutil import rmtree as rmtree
from subprocess import run as run

from dbjobq import job

from . import helpers as helpers
from .helpers import imported as imported


def plain(to: str) -> str:
    return to


class Letters:
    @staticmethod
    def send(to: str) -> str:
        return to


@job(name="custom-name")
def renamed() -> None: ...


not_a_function = functools.partial(plain, to="x")
os_module, subprocess_module = os, subprocess
