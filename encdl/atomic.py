"""Files that appear whole or not at all, and never replace another by accident."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from encdl.errors import OutputExistsError, UsageError

# What `link` answers on file systems without hard links (FAT, some network shares).
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES}


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


def write_bytes(path: str | os.PathLike[str], *parts: bytes | memoryview, force: bool = False) -> None:
    """Write `parts` one after the other as the whole content of `path`, atomically.

    The bytes go to a temporary file in the same folder, which takes the final name only after they
    reached the disk; whatever fails, no half-written file stays behind. Without `force` the final step
    cannot replace a file, even one that appeared meanwhile.

    Raises:
        OutputExistsError: the file exists and `force` is not set.
        UsageError: `path` is a folder or device, or its folder is missing.
        OSError: the disk is full, the folder is read-only, and the like.
    """
    target = check_output(path, force)
    if target.is_symlink():
        target = Path(os.path.realpath(target))  # replace what the link points to, not the link
    try:
        _write_and_rename(target, parts, force)
    except OSError as error:  # name the file that the user knows, not the temporary one
        raise OSError(error.errno, error.strerror or str(error), str(target)) from error
    _sync_folder(target.parent)


def _write_and_rename(target: Path, parts: tuple[bytes | memoryview, ...], force: bool) -> None:
    temporary = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            for part in parts:
                stream.write(part)
            stream.flush()
            os.fsync(stream.fileno())
        if force:
            with contextlib.suppress(OSError):  # the file that is replaced keeps its permissions
                os.chmod(temporary, target.stat().st_mode & 0o7777)
            os.replace(temporary, target)
        else:
            _rename_without_replacing(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _rename_without_replacing(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        check_output(target)
        raise
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        check_output(target)  # the closest that such a file system can do
        os.replace(source, target)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut, where the system lets a folder be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
