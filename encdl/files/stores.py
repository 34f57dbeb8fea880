"""Files at addresses of fsspec (`s3://…`, `memory://…`, `https://…`): containers are read by ranges, files come whole.

The packages behind an address are extras: `pip install 'encdl[stores]'` brings that of S3.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from encdl.utils.errors import EncdlError, OutputExistsError, UsageError

RANGE_BYTES = 2**18
"""The size of a request for a part of a container."""

UNREADABLE = b"?"

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


def is_folder(path: Path) -> bool:
    """Whether a name is the address of a folder; pages of the web are none.

    Raises:
        UsageError: as `opened`.
    """
    address = address_of(path)
    if address is None or address.startswith(("http://", "https://")):
        return False
    with _told(address):
        files, name = _found(address)
        return bool(files.isdir(name))


def inside(folder: Path) -> Iterator[Path | str]:
    """The files below a folder's address, sorted; as text those with names that no file has, such as `a//b` or `..`.

    Raises:
        UsageError: as `opened`.
    """
    address = str(address_of(folder)).rstrip("/")
    with _told(address):
        files, root = _found(address)
        names = sorted(name for name in files.find(root) if not name.endswith("/"))
    root = root.rstrip("/") + "/"
    for name in names:
        relative = name.removeprefix(root)
        path = folder / relative
        sound = name.startswith(root) and ".." not in path.parts and "\0" not in name
        yield path if sound and address_of(path) == f"{address}/{relative}" else f"{address}/{relative}"


def head(path: Path, length: int) -> bytes:
    """The first bytes of what lies at an address; `UNREADABLE` if it cannot be read."""
    try:
        with opened(str(address_of(path))) as stream:
            return stream.read(length)
    except UsageError:
        return UNREADABLE


def check_folder(folder: Path) -> None:
    """Say early that nothing can be stored below an address.

    Raises:
        UsageError: it cannot be used, or there is no such bucket.
    """
    address = str(address_of(folder))
    with _told(address), contextlib.suppress(PermissionError):  # who may write need not be allowed to list
        files, name = _found(address)
        bucket = name.partition("/")[0]
        if bucket and not files.exists(bucket):
            raise FileNotFoundError


@contextlib.contextmanager
def room(folder: Path, name: Path, force: bool) -> Iterator[Path]:
    """A folder to write one file of a run into: `folder`, or one from which all goes to that address afterwards.

    A file of that name that is there already lies in it too, to be compared; it stays as it is.

    Args:
        folder: where the run's files go.
        name: of the file within it.
        force: replace what is there.

    Raises:
        UsageError: it cannot be read or written.
    """
    address = address_of(folder)
    if address is None:
        yield folder
        return
    address = address.rstrip("/")
    with tempfile.TemporaryDirectory() as place, _named(f"{address}/", f"{place}/"):
        near, there = Path(place, name), False
        with _told(address):
            files, root = _found(address)
            if not force and files.exists(f"{root}/{name}"):
                near.parent.mkdir(parents=True, exist_ok=True)
                files.get_file(f"{root}/{name}", str(near))
                there = True
        yield Path(place)
        if not there:
            _put_all(address, Path(place), near)


def cached(folder: str | os.PathLike[str], name: str = "") -> Path:
    """Where a file or folder `name` within `folder` is on this machine; of an address, a copy for this user alone.

    The copy stays, in `$XDG_CACHE_HOME/encdl/stores` or `~/.cache`, and what changed in the store is fetched anew.

    Raises:
        UsageError: there is no such file or folder, or it cannot be read.
    """
    address = address_of(folder)
    return Path(folder, name) if address is None else _cached(f"{address.rstrip('/')}/{name}".rstrip("/"))


@cache  # what was current when a process began is good for it
def _cached(address: str) -> Path:
    from tqdm import tqdm  # noqa: PLC0415

    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "encdl", "stores")
    base = home / hashlib.sha256(address.rpartition("/")[0].encode()).hexdigest()[:32]
    with _told(address):
        base.mkdir(0o700, parents=True, exist_ok=True)
        files, root = _found(address)
        sizes = {name: dict(found) for name, found in files.find(root, detail=True).items() if name[-1] != "/"}
        if not sizes:
            raise FileNotFoundError
        place = base / address.rpartition("/")[2]
        with tqdm(total=sum(int(found["size"] or 0) for found in sizes.values()), desc=address, unit="B",
                  unit_scale=True, delay=2, disable=None) as bar:  # fmt: skip
            there = set[Path]()
            for name, found in sizes.items():
                below = PurePosixPath(name.removeprefix(root.rstrip("/")).lstrip("/"))
                if ".." in below.parts:
                    raise UsageError(f"{address}: holds a name that leads out of it ({below}): remove it")
                mark = base / ".versions" / hashlib.sha256(name.encode()).hexdigest()
                _fetch_changed(files, name, found, place / below, mark)
                there.add(place / below)
                bar.update(int(found["size"] or 0))
    for path in place.rglob("*"):
        if path.is_file() and path not in there:
            path.unlink(missing_ok=True)
    return place


def _fetch_changed(files: Any, name: str, found: dict[str, Any], local: Path, mark: Path) -> None:
    """Fetch a file unless the copy is of what the store has now, whole or not at all."""
    told = "".join(str(found.get(key, "")) for key in ("size", "ETag", "LastModified", "mtime", "created"))
    if local.is_file() and mark.is_file() and mark.read_text() == told:
        return
    for folder in (local.parent, mark.parent):
        folder.mkdir(0o700, parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=mark.parent) as part:
        files.get_file(name, str(Path(part, "file")))
        os.replace(Path(part, "file"), local)
    mark.write_text(told)


def _put_all(address: str, place: Path, last: Path) -> None:
    """Store all files below a folder, one of them after the others."""
    made = (path for path in place.rglob("*") if path.is_file())
    with _told(address):
        files, root = _found(address)
        for path in sorted(made, key=lambda path: path == last):
            name = f"{root}/{path.relative_to(place).as_posix()}"
            if "file" in files.protocol:  # other stores have no folders to make
                files.makedirs(name.rpartition("/")[0], exist_ok=True)
            files.put_file(str(path), name)


def on_disk(path: Path, what: str) -> Path:
    """Raise `UsageError` for an address where a file or folder on this machine is needed; `what` goes there."""
    if address := address_of(path):
        raise UsageError(f"{address}: {what} on this machine, not to an address: give a folder, and copy it from there")
    return path


@contextlib.contextmanager
def stored(output: Path | None, force: bool, inputs: Sequence[Path] = ()) -> Iterator[Path | None]:
    """Where to write a file: `output`, or a file that goes to that address once the block ended without an error.

    Whatever was written beside it goes there first.

    Raises:
        OutputExistsError: something is there, and `force` is not set.
        UsageError: it cannot be written, or is one of the `inputs`.
    """
    address = None if output is None else address_of(output)
    if output is None or address is None:
        yield output
        return
    if output in inputs:
        raise UsageError(f"{address}: the output is the same file as the input: give another name")
    with _told(address):
        files, name = _found(address)
        if not force and files.exists(name):
            raise OutputExistsError(f"{address}: exists already: give another name, or --force to replace it")
    with tempfile.TemporaryDirectory() as folder, _named(address, folder):
        local = Path(folder, output.name)
        yield local
        _put_all(address.rpartition("/")[0], Path(folder), local)


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
    known = address.rpartition("/")[0]
    try:
        yield
    except EncdlError as error:
        raise type(error)(str(error).replace(folder.rstrip("/"), known)) from None
    except OSError as error:
        if str(error.filename or "").startswith(folder):
            raise UsageError(f"{address}: a copy cannot be made on this machine ({error.strerror})") from None
        raise
