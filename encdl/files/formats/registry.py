"""Which format a file is of: its content says, and its name's ending where the content has no mark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from encdl.files.formats import dicom, nifti, non_pixel_data, npy, png_jpeg_bmp, raw_pixels, tiff, verbatim
from encdl.files.formats.base import Document, Source, source
from encdl.files.formats.new_file import write_new
from encdl.keys.secret_files import CONTAINER_MARK
from encdl.utils import atomic
from encdl.utils.errors import ImageFileError

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
"""The endings by which the files of a folder are found, lower-case, and the format of each."""

_HEAD = 2**16
_OTHERS = {
    "is encrypted by EncDL already: `encdl decrypt` opens it": (".encdl", CONTAINER_MARK),
    "is an archive of several arrays: save one array as .npy": (".npz", b"PK\x03\x04"),
}
_NOT_READ = (".mha", ".mhd", ".nrrd", ".mgz", ".mgh", ".mnc", ".par", ".rec", ".gif", ".webp")
_PAIR = (".hdr", ".img")


def suffix_of(name: str) -> str:
    """The usual ending of a format's files, dot included."""
    return FORMATS[name]


def format_of(path: Path) -> str | None:
    """The format that a name's ending stands for; None if it is unknown."""
    name = path.name.lower()
    return next(
        (SUFFIXES[end] for end in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(end)), None
    )


def load(path: Path) -> Document:
    """Read a file.

    Args:
        path: a file of one of `FORMATS`, under any name.

    Returns:
        Its pixels, which are read when they are asked for, and all the rest.

    Raises:
        ImageFileError: it cannot be read, or holds what cannot be encrypted; one line says what and what to do.
        UsageError: the library that reads the format is not installed.
    """
    where = source(path)
    return _loader(where, where.read(_HEAD))(where)


def write(path: Path, document: Document, *, force: bool = False) -> None:
    """Restore the file that a document was read from, whole or not at all.

    If `path` ends like another format than the document's, or the document has no `rest`, a new file is made of the
    pixel values alone; only .npy, .png and .tiff can be made so.

    Args:
        path: the file to be written. A NIfTI file is gzipped if its name ends with .gz.
        document: what `load` gave. Its slices are asked for once and in order; not at all if `is_whole`.
        force: whether an existing file may be replaced.

    Raises:
        ImageFileError: the document does not fit its `rest`, or the format cannot hold its pixels.
        OutputExistsError: the file exists and `force` is not set.
        UsageError: `path` is a folder or device, or its folder is missing.
    """
    path = Path(path)
    kind = format_of(path) or document.format
    if not document.rest or _family(kind) != _family(document.format):
        write_new(path, document, kind, force=force)
        return
    restore = _restorer(path, document)
    with atomic.writing(path, force=force) as stream:
        try:
            restore(stream)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise _misfit(path, error) from None


def restore(document: Document, stream: BinaryIO) -> None:
    """Write the file that a document was read from to a stream, for example in memory.

    A gzipped NIfTI file is written unzipped.

    Raises:
        ImageFileError: the document does not fit its `rest`, or has none.
    """
    if not document.rest:
        raise ImageFileError(
            f"this {document.format} document holds its pixels alone: there is no file to restore"
        )
    name = Path(FORMATS[_family(document.format)])
    try:
        _restorer(name, document)(stream)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise _misfit(document.format, error) from None


def is_whole(document: Document) -> bool:
    """Whether `rest` alone restores the file, so that its pixels are there for readers of ciphertext only.

    Raises:
        ImageFileError: `rest` is damaged.
    """
    return bool(document.rest) and _recipe(document)[0]["kind"] == "whole"


def _loader(where: Source, head: bytes) -> Callable[[Source], Document]:
    plain = nifti.inflated_head(head) if head.startswith(nifti.GZIP) else head
    for problem, (suffix, magic) in _OTHERS.items():
        if head.startswith(magic) and (magic != b"PK\x03\x04" or where.path.suffix.lower() == suffix):
            raise ImageFileError(f"{where.path}: {problem}")
    if png_jpeg_bmp.kind_of(head):
        return png_jpeg_bmp.load
    if head.startswith(npy.MAGIC):
        return npy.load
    if head.startswith(tiff.MAGIC) and head[128:132] != b"DICM":  # a DICOM file may begin with a TIFF header
        return tiff.load
    if nifti.recognises(plain):
        return nifti.load
    named = format_of(where.path)
    if head[128:132] == b"DICM" or (named in (None, "dicom") and dicom.recognises(head)):
        return dicom.load
    if head.startswith(nifti.GZIP) and not _ends(where.path, _PAIR):
        raise ImageFileError(f"{where.path}: is a gzipped file, but not of NIfTI: unpack it first")
    raise ImageFileError(f"{where.path}: {_unknown(where.path, named)}")


def _unknown(path: Path, named: str | None) -> str:
    known = "DICOM, NIfTI, PNG, TIFF, NumPy, JPEG or BMP"
    if named is not None:
        return f"does not start like its ending {path.suffix!r}: it is damaged, or not {known}"
    if _ends(path, _PAIR):
        return nifti.HALF
    if _ends(path, _NOT_READ):
        return f"files of its kind are not read: convert it to {known}"
    return f"is not an image of a known kind: give {known}"


def _ends(path: Path, endings: tuple[str, ...]) -> bool:
    return path.name.lower().removesuffix(".gz").endswith(endings)


def _family(kind: str) -> str:
    return kind.removesuffix("-gz")


def _recipe(document: Document) -> tuple[dict[str, Any], list[bytes]]:
    try:
        return non_pixel_data.unpack(document.rest)
    except (ValueError, RecursionError) as error:
        raise _misfit(document.format, error) from None


def _restorer(path: Path, document: Document) -> Callable[[BinaryIO], None]:
    """What writes the file; it takes the pieces from `rest` and the pixels from the slices."""
    recipe, pieces = _recipe(document)
    kind = recipe["kind"]
    if kind == "png" and len(pieces) == 2:
        return lambda stream: png_jpeg_bmp.restore_png(stream, document, *pieces)
    if len(pieces) != 1 or kind not in ("whole", "fortran", "spans"):
        raise _misfit(path, f"{kind!r} with {len(pieces)} pieces")
    if kind == "spans" and document.format.startswith("nifti") and path.name.lower().endswith(".gz"):
        return lambda stream: nifti.restore_gzip(stream, document, recipe, pieces[0])
    restore = {"whole": verbatim.restore, "fortran": npy.restore_fortran, "spans": raw_pixels.restore}[kind]
    return lambda stream: restore(stream, document, recipe, pieces[0])


def _misfit(where: object, reason: object) -> ImageFileError:
    return ImageFileError(f"{where}: what is kept of the original file does not fit its pixels ({reason})")
