"""What files are called before and after encryption, and which of a folder are meant."""

from __future__ import annotations

from pathlib import Path

from encdl.files import container, formats
from encdl.files.container import ContainerReader, Header
from encdl.files.formats.base import Document
from encdl.utils.errors import UsageError

DICOM = "dicom"
_DICOM_MARK = 128, b"DICM"
"""Scanners often write DICOM files without any ending."""


def is_container(path: Path) -> bool:
    """Whether a file's name says that it is encrypted."""
    return path.name.lower().endswith(container.SUFFIX)


def is_image(path: Path) -> bool:
    """Whether a file of a folder is one to encrypt, by its ending or the mark of DICOM."""
    if is_container(path) or path.name.startswith("."):
        return False
    if _known_ending(path.name):
        return True
    try:
        with path.open("rb") as stream:
            stream.seek(_DICOM_MARK[0])
            return stream.read(4) == _DICOM_MARK[1]
    except OSError:
        return False


def container_name(path: Path) -> Path:
    """The default name for an image's encrypted file: with .encdl in the place of the ending."""
    ending = _known_ending(path.name)
    return path.with_name(path.name[: len(path.name) - len(ending)] + container.SUFFIX)


def check_container_name(path: Path) -> Path:
    """Return a name for an encrypted file; raise `UsageError` if it looks like an image's."""
    ending = _known_ending(path.name)
    if ending:
        raise UsageError(
            f"{path}: an encrypted file is no {ending} image: give a name that ends with {container.SUFFIX}"
        )
    return path


def kept_suffix(source: Path, document: Document) -> str:
    """The ending that the decrypted file gets: that of the original, where it is written in the same format."""
    ending = _known_ending(source.name)
    if ending and formats.format_of(source) == document.format:
        return ending
    return "" if document.format == DICOM else formats.suffix_of(document.format)


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


def picture(header: Header) -> str:
    """Size and type of a file's array, for messages."""
    return f"{'x'.join(str(size) for size in header.shape)} {header.dtype}"


def _known_ending(name: str) -> str:
    """The longest known ending that a name has, as it is spelt there; "" for none."""
    ending = formats.ending_of(name)
    return name[len(name) - len(ending) :] if len(name) > len(ending) else ""
