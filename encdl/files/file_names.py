"""Names of files before and after encryption, and which files of a folder are meant."""

from __future__ import annotations

from pathlib import Path

from encdl.files import container, formats, stores
from encdl.files.container import ContainerReader, Header
from encdl.keys.secret_files import CONTAINER_MARK
from encdl.utils.errors import UsageError

_HEAD = 2**16


def is_container(path: Path) -> bool:
    """Whether a file's name says that it is encrypted."""
    return path.name.lower().endswith(container.SUFFIX)


def is_encrypted(path: Path) -> bool:
    """Whether a file of a folder is a container, by its content or, if that is damaged, its name."""
    return is_container(path) or (not _is_unfinished(path) and _is_sealed(_head(path)))


def is_image(path: Path) -> bool:
    """Whether a file of a folder is one to encrypt: by its ending, or by its content whatever its name.

    One that cannot be read is meant too, so that it is told.
    """
    if path.name.startswith("."):
        return False
    if known_ending(path.name):
        return True
    head = _head(path)
    return head == _UNREADABLE or formats.is_image(head)


def is_to_carry(path: Path) -> bool:
    """Whether a file of a folder is one to encrypt where all are that are not encrypted already."""
    return not _is_unfinished(path) and not _is_sealed(_head(path))


def container_name(path: Path) -> Path:
    """The default name for an image's encrypted file: with .encdl in the place of the ending.

    The ending stays where what is left would seem to have it: `a.png.png` becomes `a.png.png.encdl`.
    """
    ending = known_ending(path.name)
    stem = path.name.removesuffix(ending)
    return path.with_name((path.name if known_ending(stem) == ending else stem) + container.SUFFIX)


def check_container_name(path: Path) -> Path:
    """Return a name for an encrypted file; raise `UsageError` if it looks like an image's."""
    ending = "" if path.name.endswith(container.SUFFIX) else known_ending(path.name)
    if ending:
        raise UsageError(
            f"{path}: an encrypted file is no {ending} image: give a name that ends with {container.SUFFIX}"
        )
    return path


def known_ending(name: str) -> str:
    """The longest known ending that a name has, as it is spelt there; "" for none."""
    ending, _ = formats.ending_of(name)
    return name[len(name) - len(ending) :] if len(name) > len(ending) else ""


def original_name(path: Path, reader: ContainerReader) -> Path:
    """The name to decrypt to: without .encdl, and with the original's ending."""
    encrypted = is_container(path)
    stem = path.with_suffix("") if encrypted else path
    metadata = reader.metadata
    ending = formats.suffix_of("npy") if metadata is None else metadata.suffix
    if not ending and not encrypted and metadata is not None:
        ending = formats.suffix_of(metadata.format)
    if encrypted and stem.name.lower().endswith(ending.lower()):
        return stem
    return stem.with_name(stem.name + ending)


_UNREADABLE = stores.UNREADABLE


def _head(path: Path) -> bytes:
    """The file's first bytes."""
    if stores.address_of(path):
        return stores.head(path, _HEAD)
    try:
        with path.open("rb") as stream:
            return stream.read(_HEAD)
    except OSError:
        return _UNREADABLE


def _is_sealed(head: bytes) -> bool:
    """Whether a file is a container; a DICOM file's preamble may look like one's beginning."""
    return head.startswith(CONTAINER_MARK) and not formats.has_dicom_mark(head)


def picture(header: Header) -> str:
    """Size and type of a file's array, for messages."""
    return f"{'x'.join(str(size) for size in header.shape)} {header.dtype}"


def _is_unfinished(path: Path) -> bool:
    """Whether a file is one that is being written, or that a killed process left (`encdl.utils.atomic`)."""
    return path.name.startswith(".") and path.name.endswith(".part")
