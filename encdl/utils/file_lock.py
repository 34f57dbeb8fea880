"""Locks between processes, on files: the system takes them back, even from a process that was killed."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from encdl.utils.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

_TAKEN = {errno.EACCES, errno.EAGAIN}
_PAUSE_S = 0.1


def try_lock(path: Path) -> IO[str] | None:
    """Hold a lock on a file until what this gives is closed; None if another process holds it.

    Processes that this one forks do not inherit it. Where the file system has no locks, all get it.

    Raises:
        OSError: the file cannot be made.
    """
    stream = open(path, "a", opener=_private)  # noqa: SIM115 - it is the lock
    try:
        if fcntl is not None:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            stream.close()
            return None
    return stream


@contextlib.contextmanager
def locked(path: Path, longest_s: float = 120.0) -> Iterator[None]:
    """Hold the lock while entered; waits for it.

    Raises:
        UsageError: another process holds it for too long.
        OSError: the file cannot be made.
    """
    end = time.monotonic() + longest_s
    while (stream := try_lock(path)) is None:
        if time.monotonic() > end:
            raise UsageError(f"{path}: another process has held this lock for {longest_s:.0f} s: end it")
        time.sleep(_PAUSE_S)
    with stream:
        yield


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
