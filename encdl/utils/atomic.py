"""Files that appear whole or not at all, and never replace another by accident.

What is being written lies under a hidden name, `.NAME.part`, in the folder of the file. The writer holds a lock on it,
which the system takes back even from a process that was killed: what a killed process left behind is told from what
another one is writing, and goes when the file is written the next time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from encdl.utils.errors import OutputExistsError, UsageError
from encdl.utils.processes import held

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there, and nothing that a killed process left is removed
    fcntl = None  # type: ignore[assignment]

# What `link` answers on file systems without hard links (FAT, some network shares).
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES}
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_LONGEST_NAME = 200
"""Bytes of the file's name in the hidden one: together they must stay below 255."""


def check_output(path: str | os.PathLike[str], force: bool = False) -> Path:
    """Say early that `path` cannot be written, before any work is spent on it.

    Args:
        path: the file to be written.
        force: whether an existing file may be replaced.

    Returns:
        The path, as a `Path`.

    Raises:
        OutputExistsError: the file exists and `force` is not set.
        UsageError: it is a folder or device, or the folder that it should go into is missing.
    """
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"{target}: the output is a folder: give the name of a file in it")
    if target.exists() and not target.is_file():  # replacing /dev/null by a file would break the machine
        raise UsageError(f"{target}: the output is a device or pipe: give the name of a file")
    if not target.parent.is_dir():
        raise UsageError(f"{target}: there is no folder {target.parent}: create it first")
    if os.path.lexists(target) and not force:
        raise OutputExistsError(f"{target}: exists already: give another name, or --force to replace it")
    return target


def different_files(output: Path, *inputs: Path) -> None:
    """Raise `UsageError` if the output would replace one of the files that are being read."""
    for name in inputs:
        if is_one_of(output, [name]):
            raise UsageError(f"{output}: the output is the same file as the input {name}: give another name")


def is_one_of(path: Path, others: Sequence[Path]) -> bool:
    """Whether a file is one of others, by whatever name."""
    return any(other.exists() and path.exists() and path.samefile(other) for other in others)


def remove_leftover(path: str | os.PathLike[str]) -> None:
    """Remove what a killed process left of a file that is finished: killed in its last moment, it leaves both."""
    _remove_leftover(_hidden(Path(path)))


def write_bytes(
    path: str | os.PathLike[str], *parts: bytes | memoryview, force: bool = False, mode: int | None = None
) -> None:
    """Write `parts` one after the other as the whole content of `path`; arguments and errors of `writing`."""
    with writing(path, force=force, mode=mode) as stream:
        for part in parts:
            stream.write(part)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], *, force: bool = False, mode: int | None = None) -> Iterator[BinaryIO]:
    """Open a new file that takes its name only once the block has ended without an error.

    The bytes go to a temporary file in the same folder; they reach the disk before the final name does. Whatever
    fails, no half-written file stays behind. Without `force` the final step cannot replace a file, even one that
    appeared meanwhile; with it, the file that is replaced keeps its permissions, unless `mode` is given.

    Args:
        path: the file to be written.
        force: whether an existing file may be replaced.
        mode: its permissions, for what is secret: until it is whole, only its owner can read it. By default those of
            any new file.

    Yields:
        A binary stream to write to, which can also seek and read back. Closing it is left to this function.

    Raises:
        OutputExistsError: the file exists and `force` is not set.
        UsageError: `path` is a folder or device, or its folder is missing.
        OSError: the disk is full, the folder is read-only, and the like.
    """
    target = check_output(path, force)
    if target.is_symlink():
        target = Path(os.path.realpath(target))  # replace what the link points to, not the link
    temporary = None
    try:
        with _named(target), held():
            temporary, descriptor = _create(target, 0o666 if mode is None else 0o600)
        with _named(target, temporary), os.fdopen(descriptor, "w+b") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            if mode is not None:
                os.chmod(temporary, mode)
            _take_name(temporary, target, force, keep_mode=mode is None)
    finally:
        with held(), contextlib.suppress(OSError):
            if temporary is not None:
                os.unlink(temporary)
    with contextlib.suppress(OSError):  # the new name survives a power cut, where the system lets a folder be synced
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def _named(target: Path, temporary: Path | None = None) -> Iterator[None]:
    """Name in errors the file that the user knows, not the temporary one; those about other files pass."""
    try:
        yield
    except OSError as error:
        if temporary is not None and error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(target)) from error


def _create(target: Path, mode: int) -> tuple[Path, int]:
    """A new temporary file for `target`, open and locked."""
    temporary = _hidden(target)
    while True:
        try:
            descriptor = os.open(temporary, _NEW, mode)
        except FileExistsError:
            if not _remove_leftover(temporary):  # another process writes the same file: let the faster one win
                temporary = _hidden(target, f".{secrets.token_hex(6)}")
            continue
        if _is_ours(temporary, descriptor):
            return temporary, descriptor
        os.close(descriptor)  # another process took it for a leftover in the moment before it was locked


def _hidden(target: Path, more: str = "") -> Path:
    """Under which name a file is being written."""
    name = os.fsdecode(os.fsencode(target.name)[:_LONGEST_NAME])
    return target.with_name(f".{name}{more}.part")


def _remove_leftover(path: Path) -> bool:
    """Remove what a killed process left; False if it cannot be told from what another process is writing."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if _is_ours(path, descriptor):
            os.unlink(path)
            return True
        return False
    finally:
        os.close(descriptor)


def _is_ours(path: Path, descriptor: int) -> bool:
    """Lock an open file; whether nobody else has, and it is still the one of this name. Not every system can lock."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _take_name(temporary: Path, target: Path, force: bool, keep_mode: bool) -> None:
    """Give the whole file its name; without `force` only if nobody else has taken it."""
    if force:
        if keep_mode:
            with contextlib.suppress(OSError):
                os.chmod(temporary, target.stat().st_mode & 0o7777)
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target)
    except FileExistsError:
        check_output(target)
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        check_output(target)  # the closest that such a file system can do
        os.replace(temporary, target)
