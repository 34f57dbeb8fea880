"""Which format a file is of, by its content first and by its name's ending after that."""

from __future__ import annotations

from pathlib import Path

from encdl import images
from encdl.formats.base import Array, Document

FORMATS = {
    "png": ".png",
    "tiff": ".tiff",
    "npy": ".npy",
    "jpeg": ".jpg",
    "bmp": ".bmp",
    "dicom": ".dcm",
    "nifti": ".nii",
    "nifti-gz": ".nii.gz",
}
"""Names of the formats, and the usual ending of each."""

SUFFIXES = {
    **{suffix: name for name, suffix in FORMATS.items()},
    ".tif": "tiff",
    ".jpeg": "jpeg",
    ".dicom": "dicom",
    ".ima": "dicom",
}
"""The endings by which a folder's files are found, lower-case, and the format of each."""


def suffix_of(name: str) -> str:
    """The usual ending of a format's files, dot included."""
    return FORMATS[name]


def format_of(path: Path) -> str | None:
    """The format that a name's ending stands for; None if it is unknown."""
    name = path.name.lower()
    return next((SUFFIXES[suffix] for suffix in sorted(SUFFIXES, key=len)[::-1] if name.endswith(suffix)), None)


def load(path: Path) -> Document:
    """Read a file.

    Raises:
        ImageFileError: it cannot be read or holds what cannot be encrypted; one line says what and what to do.
    """
    raise NotImplementedError


def write(path: Path, document: Document, *, force: bool = False) -> None:
    """Restore the file that a document was read from, whole or not at all.

    If `path` ends like another format than the document's, or the document has no `rest`, a new file is made of the
    pixel values alone; only .npy, .png and .tiff can be made so.

    Args:
        path: the file to be written.
        document: what `load` gave; its slices are asked for once and in order, or not at all if `rest` holds the
            whole file.
        force: whether an existing file may be replaced.

    Raises:
        ImageFileError: the document does not fit its `rest`, or the format cannot hold its pixels.
        OutputExistsError: the file exists and `force` is not set.
    """
    raise NotImplementedError
