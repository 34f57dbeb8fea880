"""DICOM files, byte for byte: pixels as they are stored, and every element, private ones and file meta included.

Uncompressed pixels are taken out of the file and put back. A file with compressed pixels is kept whole beside the
pixels that pydicom's decoders find in it. Stored values are never changed: no rescaling, no windowing, no conversion of
colour (YBR stays YBR), no masking of the bits above `BitsStored`.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from encdl.files.formats import dicom_frame, raw_pixels, verbatim
from encdl.files.formats.base import Array, Document, Source, check_array, decoding, one_line
from encdl.files.formats.codestream import rows_and_columns
from encdl.utils.errors import ImageFileError

_SMALL = 2**26
_DEFLATED_LIMIT = 2**30
_PIXELS = {0x0010: "", 0x0008: "f4", 0x0009: "f8"}
"""Elements of group 7FE0 that hold pixels, and the type of their values if that does not hang on other elements."""
_PIXEL_VRS = (b"OB", b"OW", b"UN", b"OF", b"OD")
_IMAGES = ("Image Storage", "Dose Storage", "Segmentation Storage", "Parametric Map Storage")
_FIRST_GROUPS = (b"\x02\0", b"\x08\0")


@dataclass(frozen=True)
class _Pixels:
    """Where the value of the pixel element is, and in what transfer syntax."""

    element: int
    vr: str
    offset: int
    length: int
    big: bool
    syntax: Any


def recognises(head: bytes) -> bool:
    """Whether the first bytes are those of a DICOM file, with its preamble or without."""
    if head[128:132] == b"DICM":
        return True
    group = head[:2] if head[1:2] == b"\0" else head[1::-1]
    if len(head) < 12 or group not in _FIRST_GROUPS:
        return False
    explicit = head[4:6] in (b"UL", b"OB", b"UI", b"CS", b"LO", b"DA", b"SH", b"AE")
    return explicit or int.from_bytes(head[4:8], "little") < 1024  # implicit: a length


def load(source: Source) -> Document:
    """Read a DICOM file with pixels.

    Raises:
        ImageFileError: it is damaged, too large, without pixels, or compressed in a way that nothing installed decodes.
    """
    import pydicom  # noqa: PLC0415

    with decoding(source.path, "DICOM"):
        syntax = _transfer_syntax(pydicom, io.BytesIO(source.read(2**20)))
        if syntax is not None and (syntax.is_private or not syntax.is_transfer_syntax):
            raise ImageFileError(
                f"{source.path}: is in the unknown or private transfer syntax {_shown(syntax)}: "
                "convert it to a standard one"
            )
        if syntax is not None and syntax.is_deflated:
            _check_deflated(pydicom, source)
            return _decoded(pydicom, source, syntax)
        dataset, pixels = _read(pydicom, source)
        if syntax is not None and syntax.is_encapsulated:
            return _decoded(pydicom, source, syntax)
        plain = _plain(source, dataset, pixels)
        if plain is None:
            return _decoded(pydicom, source, pixels.syntax)
    where, shape, layout = plain
    return raw_pixels.document(source, where, shape, layout, "dicom")


def _stream(source: Source) -> BinaryIO:
    """Small files in memory: what a damaged length asks for is then not allocated first."""
    return io.BytesIO(source.read(_SMALL))


def _transfer_syntax(pydicom: Any, stream: BinaryIO) -> Any:
    """Of the file, from its meta group, behind which `stream` then stands; None if it does not say."""
    reader = pydicom.filereader
    reader.read_preamble(stream, force=True)
    meta = reader.read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    return meta.get("TransferSyntaxUID") or None


def _read(pydicom: Any, source: Source) -> tuple[Any, _Pixels]:
    """All before the pixels, and where they are."""
    with source.open() as file:
        stream = file if source.size > _SMALL else _stream(source)
        dataset = pydicom.dcmread(stream, force=True, stop_before_pixels=True, defer_size=2**16)
        _, little = dataset.original_encoding
        head = stream.read(12)  # pydicom stopped before the element
        # What the meta group says of it may be wrong. No length of an implicit element is odd, as these letters are.
        implicit = not (head[4:6] in _PIXEL_VRS and head[6:8] == b"\0\0")
        order = "<" if little else ">"
        offset = stream.tell() - len(head) + (8 if implicit else 12)
    if len(head) < 8 or struct.unpack(f"{order}H", head[:2])[0] != 0x7FE0:
        raise _without_pixels(source, dataset)
    element = struct.unpack(f"{order}H", head[2:4])[0]
    vr = "" if implicit else head[4:6].decode("latin-1")
    length = struct.unpack(f"{order}I", head[4:8] if implicit else head[8:12])[0]
    uid = pydicom.uid
    guess = {
        (True, True): uid.ImplicitVRLittleEndian,
        (False, True): uid.ExplicitVRLittleEndian,
        (False, False): uid.ExplicitVRBigEndian,
    }[implicit, little]
    return dataset, _Pixels(element, vr, offset, length, not little, guess)


def _without_pixels(source: Source, dataset: Any) -> ImageFileError:
    """An image whose file is cut before its pixels, or what is none."""
    # Where elements lie is known until they are read; of a sequence without a length that it starts, and has an end.
    ends = [
        (each.value_tell, each.value_tell + each.length)
        if hasattr(each, "value_tell")
        else (each.file_tell, source.size)
        for each in dataset.elements()
    ]
    if not ends or max(ends)[1] != source.size:
        return ImageFileError(
            f"{source.path}: this DICOM file ends within its header: it is truncated, export or copy it again"
        )
    uid = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    kind = str(getattr(uid, "name", "") or dataset.get("Modality", ""))
    if not kind or kind.endswith(_IMAGES):
        return ImageFileError(
            f"{source.path}: ends before its pixels ({_shown(kind)}): it is truncated, export or copy it again; "
            "--carry-others seals it as it is"
        )
    return ImageFileError(
        f"{source.path}: holds no pixels ({_shown(kind)}): an image cipher has nothing to encrypt; --carry-others "
        "seals such files as they are"
    )


def _plain(source: Source, dataset: Any, pixels: _Pixels) -> tuple[raw_pixels.Spans, tuple[int, ...], str] | None:
    """Where the pixels lie as they are; None if they are packed or in an order of their own."""
    shape, layout = _shape(source, dataset)
    bits = int(dataset.BitsAllocated)
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if photometric.startswith("YBR_PARTIAL"):
        raise ImageFileError(
            f"{source.path}: has uncompressed pixels in {_shown(photometric)}: convert them to RGB first"
        )
    subsampled = "422" in photometric and layout.endswith("C")
    if bits == 1 or subsampled or (pixels.big and bits == 8 and pixels.vr == "OW"):
        return None
    if bits not in (8, 16, 32, 64):
        raise ImageFileError(f"{source.path}: has {bits} bits allocated: convert it to 8, 16, 32 or 64")
    signed = "i" if int(dataset.get("PixelRepresentation", 0) or 0) else "u"
    code = _PIXELS[pixels.element] or f"{signed}{bits // 8}"
    dtype = np.dtype((">" if pixels.big else "<") + code)
    size = math.prod(shape) * dtype.itemsize
    if pixels.length == 0xFFFFFFFF or pixels.length < size:
        raise ValueError("pixels are missing")
    planar = layout.endswith("C") and int(dataset.get("PlanarConfiguration", 0) or 0) == 1
    one = shape[1:] if layout.startswith("S") else shape
    where = raw_pixels.Spans(((pixels.offset, size),), one, dtype, planar, source.size)
    return where, shape, layout


def _shape(source: Source, dataset: Any) -> tuple[tuple[int, ...], str]:
    lacking = [name for name in ("Rows", "Columns", "BitsAllocated") if dataset.get(name) is None]
    if lacking:
        raise ImageFileError(f"{source.path}: lacks the element {lacking[0]}: export the image again")
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    samples = int(dataset.get("SamplesPerPixel", 1) or 1)
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    several, colour = frames != 1, samples != 1
    shape = (*((frames,) * several), rows, columns, *((samples,) * colour))
    layout = "S" * several + "HW" + "C" * colour
    check_array(source.path, shape, layout, np.dtype("u1"))
    return shape, layout


def _decoded(pydicom: Any, source: Source, syntax: Any) -> Document:
    """The file as a whole, and its pixels through pydicom's decoders."""
    _check_decoder(source, pydicom.pixels, syntax)
    packed = not syntax.is_encapsulated and not syntax.is_deflated
    data = source.whole(deflate=packed)
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    if not any(tag in dataset for tag in (0x7FE00010, 0x7FE00008, 0x7FE00009)):
        _read(pydicom, source)  # says that there are none
        raise ValueError("pixels are missing")
    shape, layout = _shape(source, dataset)
    first = next(_frames(pydicom, source, dataset, syntax))
    expected = shape[1:] if layout.startswith("S") else shape
    if first.shape != expected:
        raise ValueError(f"frames of {first.shape} instead of {expected}")

    def slices() -> Iterator[Array]:
        with decoding(source.path, "DICOM"):
            again = pydicom.dcmread(io.BytesIO(source.whole(deflate=packed)), force=True)
        with one_line(source.path, "DICOM"):
            for frame in _frames(pydicom, source, again, syntax):
                if frame.shape != expected or frame.dtype != first.dtype:
                    raise ValueError(f"a frame of {frame.dtype.name} {frame.shape}, unlike the first")
                yield frame

    return verbatim.document(source, data, "dicom", shape, layout, first.dtype, slices, deflate=packed)


def _check_decoder(source: Source, pixels: Any, syntax: Any) -> None:
    try:
        decoder = pixels.get_decoder(syntax)
    except NotImplementedError:
        raise ImageFileError(
            f"{source.path}: its pixels are in {syntax.name}, for which there is no decoder: "
            "convert it to another transfer syntax"
        ) from None
    if not decoder.is_available:
        missing = "; or ".join(decoder.missing_dependencies)
        raise ImageFileError(
            f"{source.path}: its pixels are in {syntax.name}, and decoding them needs a package that is not "
            f"installed: pip install 'encdl[dicom]' ({missing})"
        )


def _frames(pydicom: Any, source: Source, dataset: Any, syntax: Any) -> Iterator[Array]:
    """Decode frame by frame."""
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    with decoding(source.path, "DICOM"):
        dataset.file_meta.TransferSyntaxUID = syntax  # for a file that has no meta
        packed: Iterator[bytes] = iter(())
        together: Iterator[Array] | None = None
        if syntax.is_encapsulated:
            _check_frames(pydicom, source, dataset)
            # By its number, each frame without a table of offsets would be looked for from the start.
            packed = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=count)
            options = pydicom.pixels.utils.as_pixel_options(dataset, number_of_frames=1)
        elif dataset.BitsAllocated == 1 and count > 1 and dataset.Rows * dataset.Columns % 8:
            together = iter(pydicom.pixels.pixel_array(dataset, raw=True))  # frames do not begin with a byte
    for index in range(count):
        if syntax.is_encapsulated:
            with one_line(source.path, "DICOM"):
                frame = dicom_frame.decoded(source.path, pydicom, next(packed), syntax, options)
            yield frame
            continue
        if together is not None:
            yield next(together)
            continue
        with decoding(source.path, "DICOM"):
            frame = raw_pixels.to_little(pydicom.pixels.pixel_array(dataset, index=index, raw=True))
        yield frame


def _check_frames(pydicom: Any, source: Source, dataset: Any) -> None:
    """Refuse frames that claim to be larger than the image."""
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    for frame in pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=count):
        size = rows_and_columns(frame)
        if size is not None and (size[0] > dataset.Rows or size[1] > dataset.Columns):
            raise ImageFileError(
                f"{source.path}: a frame of {size[0]}x{size[1]} pixels in an image of {dataset.Rows}x"
                f"{dataset.Columns}: it is damaged, export or copy it again"
            )


def _shown(name: object) -> str:
    """A name or identifier out of a file, for an error; in damaged files anything may stand there, patients too."""
    text = str(name)
    return text if re.fullmatch(r"[\w .,()/-]{1,64}", text, re.ASCII) else "of no known class"


def _check_deflated(pydicom: Any, source: Source) -> None:
    """Refuse a data set that inflates beyond all measure; what follows the meta group is one raw deflate stream."""
    stream = io.BytesIO(source.whole())
    _transfer_syntax(pydicom, stream)
    inflater, left, total = zlib.decompressobj(-zlib.MAX_WBITS), stream.read(), 0
    while left and not inflater.eof:
        total += len(inflater.decompress(left, 2**20))
        left = inflater.unconsumed_tail
        if total > _DEFLATED_LIMIT:
            raise ImageFileError(f"{source.path}: inflates to more than {_DEFLATED_LIMIT:,} bytes: save it undeflated")
    if not inflater.eof:
        raise EOFError("the deflated data set is cut")
