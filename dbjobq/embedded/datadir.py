"""The directory in which an embedded server keeps its data, safe to be used by root, too.

The owner of a directory decides what lies in it, and root may be asked to work in another account's directory. So a
`DataDir` takes only a directory that belongs to the server's account, or makes one. It holds the directory open, and
reaches files in it through that descriptor: a link in the place of a file is refused, never followed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from dbjobq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Account", "DataDir"]

_PLAIN: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags for opening a plain file: no link is followed, and no pipe's other end is waited for."""


class Account(NamedTuple):
    """The account that owns the data and runs the server."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        """Return the account's name, or its number where it has none."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)


class DataDir:
    """A directory of the server's account, held open; see the module. Used as a context manager.

    Args:
        path: The directory; made, with its parents, if it is not there.
        account: The account that owns it, or will own it.

    Raises:
        ConfigError: The path is no directory, belongs to another account, or may be written by everybody. Nothing was
            changed.
    """

    def __init__(self, path: Path, account: Account) -> None:
        self.path, self._account = path, account
        with self._explained():
            self._fd = self._opened()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def _opened(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            own = self._account
        else:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            own = Account(os.geteuid(), os.getegid())
        try:
            self._check(fd, own)
            if own != self._account:
                os.fchown(fd, *self._account)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _check(self, fd: int, own: Account) -> None:
        found = os.fstat(fd)
        if found.st_uid != own.uid:
            whose, needs = Account(found.st_uid, found.st_gid).name, self._account.name
            raise ConfigError(
                f"the data directory {self.path} exists and belongs to {whose}, not to {needs}, who runs the server: "
                f"name one that does not exist yet, or give it to {needs} yourself"
            )
        if found.st_mode & stat.S_IWOTH:
            raise ConfigError(
                f"every account may write to the data directory {self.path}: chmod 700 it, or name another"
            )

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Hold the directory's lock, so that looking for a running server and starting one are one step."""
        with self._explained():
            fd = self._lock_file()
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
            except BaseException:
                os.close(fd)
                raise
        try:
            yield
        finally:
            os.close(fd)

    def _lock_file(self) -> int:
        with contextlib.suppress(FileExistsError):
            return self._new("lock")
        return self._open("lock", os.O_RDWR)

    def has(self, name: str) -> bool:
        """Tell whether the directory has an entry of this name."""
        with self._explained():
            try:
                os.stat(name, dir_fd=self._fd)
            except FileNotFoundError:
                return False
        return True

    def read(self, name: str) -> str | None:
        """Return the text of a file of the account's; None if there is none."""
        with self._explained():
            try:
                fd = self._open(name, os.O_RDONLY)
            except FileNotFoundError:
                return None
            with open(fd, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a descriptor has no path
                return file.read()

    def write(self, name: str, text: str) -> None:
        """Make a file anew, which only the account may read."""
        with self._explained():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._fd)
            with open(self._new(name), "w", encoding="utf-8") as file:  # noqa: PTH123 - as above
                file.write(text)

    def remove(self, name: str) -> None:
        """Remove a directory with all that is in it, if it is there."""
        with self._explained(), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(name, dir_fd=self._fd)

    def rename(self, name: str, to: str) -> None:
        """Rename an entry of the directory."""
        with self._explained():
            os.rename(name, to, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def _new(self, name: str) -> int:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _PLAIN, 0o600, dir_fd=self._fd)
        if self._account.uid != os.geteuid():
            os.fchown(fd, *self._account)
        return fd

    def _open(self, name: str, how: int) -> int:
        """Open a plain file that belongs to the account. A hard link to another account's file is refused."""
        fd = os.open(name, how | _PLAIN, dir_fd=self._fd)
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and found.st_uid == self._account.uid:
            return fd
        os.close(fd)
        raise ConfigError(f"{self.path / name} is not a plain file of {self._account.name}'s: nothing was done with it")

    @contextlib.contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ConfigError(f"{self.path}: a link lies where a file should be ({error}): remove it") from error
            raise ConfigError(f"no access to the data directory {self.path}: {error}") from error
