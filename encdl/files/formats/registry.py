"""Which format a file is of: its content says, whatever its name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from encdl.files.formats import dicom, nifti, non_pixel_data, npy, png_jpeg_bmp, raw_pixels, tiff, verbatim
from encdl.files.formats.base import Document, Format, Source, source
from encdl.files.formats.new_file import write_new
from encdl.keys.secret_files import CONTAINER_MARK
from encdl.utils import atomic
from encdl.utils.errors import ImageFileError
from encdl.utils.registry import Registry

FORMATS: Registry[Format] = Registry(
    "format",
    "encdl.formats",
    Format,
    {
        "png": Format((".png",), lambda head, _: head.startswith(png_jpeg_bmp.PNG), png_jpeg_bmp.load),
        "jpeg": Format((".jpg", ".jpeg"), lambda head, _: head.startswith(png_jpeg_bmp.JPEG), png_jpeg_bmp.load),
        "bmp": Format((".bmp",), lambda head, _: png_jpeg_bmp.kind_of(head) == "bmp", png_jpeg_bmp.load),
        "npy": Format((".npy",), lambda head, _: head.startswith(npy.MAGIC), npy.load),
        "tiff": Format((".tiff", ".tif"), lambda head, _: head.startswith(tiff.MAGIC), tiff.load),
        "nifti": Format((".nii",), lambda head, _: nifti.recognises(head), nifti.load),
        "nifti-gz": Format((".nii.gz",), lambda head, _: nifti.recognises_zipped(head), nifti.load),
        # The last to be asked: without its mark a file could be of another format.
        "dicom": Format((".dcm", ".dicom", ".ima"), lambda head, _: dicom.recognises(head), dicom.load),
    },
)
"""In the order in which they are asked whether a file is theirs."""

_HEAD = 2**16
_OTHERS = {
    "is encrypted by EncDL already: `encdl decrypt` opens it": (".encdl", CONTAINER_MARK),
    "is an archive of several arrays: save one array as .npy": (".npz", b"PK\x03\x04"),
}
_NOT_READ = (".mha", ".mhd", ".nrrd", ".mgz", ".mgh", ".mnc", ".par", ".rec", ".gif", ".webp")
_PAIR = (".hdr", ".img")


def suffix_of(name: str) -> str:
    """The usual ending of a format's files, dot included; "" for files that are no images.

    Raises:
        ImageFileError: There is no such format.
    """
    if name == verbatim.CARRIED:
        return ""
    if name not in FORMATS:
        raise ImageFileError(FORMATS.unknown(name))
    return FORMATS[name].suffixes[0]


def ending_of(name: str) -> tuple[str, str | None]:
    """The longest known ending of a file's name, lower-case and with its dot, and its format; "" and None for none.

    Formats of other packages are asked for, and loaded, if it is none of EncDL's own.
    """
    for formats in (FORMATS.registered, FORMATS):
        found = {end: kind for kind, each in formats.items() for end in each.suffixes if name.lower().endswith(end)}
        if found:
            longest = max(found, key=len)
            return longest, found[longest]
    return "", None


def has_dicom_mark(head: bytes) -> bool:
    """Whether the mark of DICOM and a first element stand behind a preamble, which may hold anything (PS3.10, 7.1)."""
    return head[128:132] == b"DICM" and head[132:134] in (b"\x02\0", b"\x08\0", b"\0\x08")


def is_image(head: bytes) -> bool:
    """Whether a file's first 64 KiB are those of one of `FORMATS`."""
    return has_dicom_mark(head) or any(kind.recognises(head, None) for kind in FORMATS.values())


def load(path: Path, *, carry: bool = False) -> Document:
    """Read a file.

    Args:
        path: a file of one of `FORMATS`, under any name.
        carry: whether a file that is no image, or none that can be read, is taken as it is (`verbatim.carried`).

    Returns:
        Its pixels, which are read when they are asked for, and all the rest.

    Raises:
        ImageFileError: it cannot be read, or holds what cannot be encrypted; one line says what and what to do.
        UsageError: the library that reads the format is not installed.
    """
    where = source(path, empty=carry)
    try:
        return _format_of(where).load(where)
    except ImageFileError:
        if carry:
            return verbatim.carried(where)
        raise


def write(path: Path, document: Document, *, force: bool = False, suffix: str | None = None) -> None:
    """Restore the file that a document was read from, whole or not at all, with its permissions.

    If `path` ends like another format than the document's, or the document has no `rest`, a new file is made of the
    pixel values alone; only .npy, .png and .tiff can be made so.

    Args:
        path: the file to be written.
        document: what `load` gave. Its slices are asked for once and in order; not at all if `is_whole`.
        force: whether an existing file may be replaced.
        suffix: the ending that the original had, where it is known: under it the original is restored, whatever format
            it stands for. Under another one a NIfTI file is gzipped if and only if that is .gz.

    Raises:
        ImageFileError: the document does not fit its `rest`, or the format cannot hold its pixels.
        OutputExistsError: the file exists and `force` is not set.
        UsageError: `path` is a folder or device, or its folder is missing.
    """
    path = Path(path)
    kind = ending_of(path.name)[1] or document.format
    named = path.name.lower()
    same = suffix is not None and (named.endswith(suffix.lower()) if suffix else kind == document.format)
    if (same and document.format in FORMATS) or document.format == verbatim.CARRIED:
        kind = document.format
    if not document.rest or kind.removesuffix("-gz") != document.format.removesuffix("-gz"):
        write_new(path, document, kind, force=force)
        return
    recipe, pieces = _recipe(document)
    restore, mode = _restorer(path, document, kind, recipe, pieces), recipe.get("mode")
    with atomic.writing(path, force=force, mode=mode & 0o777 if isinstance(mode, int) else 0o600) as stream:
        try:
            restore(stream)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise _misfit(path, error) from None


def same_rest(one: bytes, other: bytes) -> bool:
    """Whether two documents' `rest` are of the same file, whose permissions may have changed."""
    if one == other:
        return True
    try:
        (first, pieces), (second, others) = (non_pixel_data.unpack(rest) for rest in (one, other))
    except (ValueError, RecursionError):
        return False
    return {**first, "mode": 0} == {**second, "mode": 0} and pieces == others


def restore(document: Document, stream: BinaryIO) -> None:
    """Write the file that a document was read from to a stream, for example in memory.

    A gzipped NIfTI file is written unzipped.

    Raises:
        ImageFileError: the document does not fit its `rest`, or has none.
    """
    if not document.rest:
        raise ImageFileError(f"this {document.format} document holds its pixels alone: there is no file to restore")
    try:
        _restorer(Path(document.format), document, document.format.removesuffix("-gz"), *_recipe(document))(stream)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise _misfit(document.format, error) from None


def is_whole(document: Document) -> bool:
    """Whether `rest` alone restores the file, so that its pixels are there for readers of ciphertext only.

    Raises:
        ImageFileError: `rest` is damaged.
    """
    return bool(document.rest) and _recipe(document)[0]["kind"] == "whole"


def file_head(document: Document) -> bytes:
    """The bytes of the original before its pixels, or all of a file that is kept whole; b"" if there are none.

    Of a gzipped NIfTI file they are those inside, and no more of them than its header.

    Raises:
        ImageFileError: `rest` is damaged.
    """
    if not document.rest:
        return b""
    recipe, pieces = _recipe(document)
    places = recipe.get("places") or [[None]]
    head = pieces[0][: places[0][0]] if pieces else b""
    return nifti.inflated_head(head[:_HEAD]) if head.startswith(nifti.GZIP) else head


def _format_of(where: Source) -> Format:
    head = where.head
    if has_dicom_mark(head):
        return FORMATS["dicom"]
    for problem, (suffix, magic) in _OTHERS.items():
        if head.startswith(magic) and (magic != b"PK\x03\x04" or where.path.suffix.lower() == suffix):
            raise ImageFileError(f"{where.path}: {problem}")
    named = ending_of(where.path.name)[1]
    for formats in (FORMATS.registered, FORMATS):  # other packages are not looked through if a format is our own
        for each in formats.values():
            if each.recognises(head, named):
                return each
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


def _recipe(document: Document) -> tuple[dict[str, Any], list[bytes]]:
    try:
        return non_pixel_data.unpack(document.rest)
    except (ValueError, RecursionError) as error:
        raise _misfit(document.format, error) from None


def _restorer(
    path: Path, document: Document, kind_of_file: str, recipe: dict[str, Any], pieces: list[bytes]
) -> Callable[[BinaryIO], None]:
    """A function that writes the file from what `rest` holds, and the pixels of the slices."""
    kind = recipe["kind"]
    if kind == "png" and len(pieces) == 2:
        return partial(png_jpeg_bmp.restore_png, document=document, before=pieces[0], after=pieces[1])
    if len(pieces) != 1 or kind not in ("whole", "fortran", "spans"):
        raise _misfit(path, f"{kind!r} with {len(pieces)} pieces")
    if kind_of_file == "nifti-gz" and kind == "spans":
        return partial(nifti.restore_gzip, document=document, recipe=recipe, around=pieces[0])
    if kind_of_file == "nifti" and document.format == "nifti-gz" and kind == "whole":
        return lambda stream: nifti.unzip(stream, pieces[0])
    restore = {"whole": verbatim.restore, "fortran": npy.restore_fortran, "spans": raw_pixels.restore}[kind]
    return partial(restore, document=document, recipe=recipe, around=pieces[0])


def _misfit(where: object, reason: object) -> ImageFileError:
    return ImageFileError(f"{where}: what is kept of the original file does not fit its pixels ({reason})")
