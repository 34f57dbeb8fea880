"""Locks between processes, on files: the system takes them back, even from a process that was killed."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from encdl.utils.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

_TAKEN = {errno.EACCES, errno.EAGAIN}
_PAUSE_S = 0.1


class Lock:
    """Holds a lock until it is closed, or nobody has it any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Give it back."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    __del__ = close


def try_lock(path: Path) -> Lock | None:
    """A lock on a file, which is made; None if another process holds it.

    Processes that this one forks do not inherit it. Where the file system has no locks, all get it.

    Raises:
        OSError: the file cannot be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if fcntl is not None:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            os.close(descriptor)
            return None
    return Lock(descriptor)


@contextlib.contextmanager
def locked(path: Path, longest_s: float = 120.0) -> Iterator[None]:
    """Hold the lock while entered; waits for it.

    Raises:
        UsageError: another process holds it for too long.
        OSError: the file cannot be made.
    """
    end = time.monotonic() + longest_s
    while (lock := try_lock(path)) is None:
        if time.monotonic() > end:
            raise UsageError(f"{path}: another process has held this lock for {longest_s:.0f} s: end it")
        time.sleep(_PAUSE_S)
    try:
        yield
    finally:
        lock.close()
