"""Files at addresses of fsspec (`s3://…`, `memory://…`, `https://…`): containers are read by ranges, files come whole.

The packages behind an address are extras: `pip install 'encdl[stores]'` brings that of S3.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from encdl.utils.errors import EncdlError, OutputExistsError, UsageError

RANGE_BYTES = 2**18
"""The size of a request for a part of a container."""

_COLLAPSED = re.compile(r"([a-z][a-z0-9+.-]+):/+(?=[^/])")


def address_of(path: str | os.PathLike[str]) -> str | None:
    """The address that a name is, also when it went through a `Path`, which takes slashes out; None for a file's."""
    text = os.fspath(path)
    found = _COLLAPSED.match(text)
    return None if found is None else f"{found[1]}://{text[found.end() :]}"


@contextlib.contextmanager
def opened(address: str) -> Iterator[BinaryIO]:
    """A stream that fetches by ranges what is read of it.

    Raises:
        UsageError: there is nothing at this address, or it cannot be read.
    """
    with _told(address):
        files, path = _found(address)
        stream = files.open(path, "rb", block_size=RANGE_BYTES)
    with stream:
        yield cast(BinaryIO, stream)


@contextlib.contextmanager
def fetched(path: Path) -> Iterator[Path]:
    """A file on this machine: `path`, or a copy of what lies at that address, for as long as the block takes.

    Raises:
        UsageError: as `opened`.
    """
    address = address_of(path)
    if address is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder, _named(address, folder):  # for its owner alone
        local = Path(folder, path.name)
        with _told(address):
            files, name = _found(address)
            files.get_file(name, str(local))
        yield local


@contextlib.contextmanager
def stored(output: Path | None, force: bool) -> Iterator[Path | None]:
    """Where to write a file: `output`, or a file that goes to that address once the block ended without an error.

    Whatever was written beside it goes there first.

    Raises:
        OutputExistsError: something is there, and `force` is not set.
        UsageError: it cannot be written.
    """
    address = None if output is None else address_of(output)
    if output is None or address is None:
        yield output
        return
    with _told(address):
        files, name = _found(address)
        if not force and files.exists(name):
            raise OutputExistsError(f"{address}: exists already: give another name, or --force to replace it")
    with tempfile.TemporaryDirectory() as folder, _named(address, folder):
        local = Path(folder, output.name)
        yield local
        beside = name[: -len(output.name)]
        with _told(address):
            for made in sorted(Path(folder).iterdir(), key=lambda path: path == local):
                files.put_file(str(made), beside + made.name)


def _found(address: str) -> tuple[Any, str]:
    """The file system behind an address, and the name there."""
    import fsspec  # noqa: PLC0415 - takes a moment, and most files are on disks

    files, name = fsspec.core.url_to_fs(address)
    return files, name


@contextlib.contextmanager
def _told(address: str) -> Iterator[None]:
    """Tell in one line of whatever a store's library raises: each has errors of its own."""
    try:
        yield
    except EncdlError:
        raise
    except FileNotFoundError:
        raise UsageError(f"{address}: there is nothing at this address: check it") from None
    except ImportError:
        raise UsageError(f"{address}: needs another package: pip install 'encdl[stores]'") from None
    except Exception as error:
        raise UsageError(f"{address}: cannot be used ({type(error).__name__}): check address and access") from None


@contextlib.contextmanager
def _named(address: str, folder: str) -> Iterator[None]:
    """Name in errors the address that the user knows, not the copy."""
    try:
        yield
    except EncdlError as error:
        known = address.rpartition("/")[0]
        raise type(error)(str(error).replace(folder, known)) from None
