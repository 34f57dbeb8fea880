"""A reader for MONAI's `LoadImage`: a `.encdl` file gives what the file that it was made from would give."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data.image_reader import ImageReader, NibabelReader, NumpyReader, PILReader, PydicomReader
from monai.data.utils import correct_nifti_header_if_necessary, is_supported_format
from monai.utils.enums import MetaKeys
from PIL import Image

from encdl.files import container, formats
from encdl.files.codecs import codec_of
from encdl.files.folders import Source
from encdl.files.formats.base import Document, array_of
from encdl.files.scan_files import SERIES_PREFIX, Unit, find_units
from encdl.files.series_tags import name_of
from encdl.transforms.encryption import FORMAT, told_of
from encdl.transforms.key_reference import KeyHolder, PipelineKey
from encdl.utils.errors import EncdlError, ImageFileError, UsageError

Meta = dict[Any, Any]
_IMAGES = ("png", "jpeg", "bmp")
_NIFTI = ("nifti", "nifti-gz")
_NAMED = 4
"""Scans of a folder that an error names."""
_FAILED = "failed"


@dataclass(frozen=True)
class Loaded:
    """One decrypted image as the library of its format has it, or as (array, metadata).

    Attributes:
        kind: the format's name.
        image: a nibabel or PIL image, a pydicom dataset, a list of those of a folder, an array, or (array, metadata);
            the error of the kind "failed".
        name: of the `.encdl` file or folder; of a folder's files.
    """

    kind: str
    image: Any
    name: Any


class EncdlReader(ImageReader):  # type: ignore[misc]
    """Reads `.encdl` files, and folders of encrypted DICOM slices, in memory: nothing is decrypted to the disk.

    A folder of several series, or of slices of several sizes or orientations, is refused, with the names of its scans:
    `FOLDER/series-TAG`, as `encdl predict` calls them, is read as the files of that one.

    NIfTI, DICOM, PNG, JPEG, BMP and NumPy files go through MONAI's own readers, so that pixels, affine and metadata are
    those of the original. TIFF files give their pixels with x first, like images; what `Encrypt` made gives its
    array and metadata.

    Args:
        key: as of `encdl.Encrypt`.
        weights: name or file of the cipher's weights; those that each file names by default.
        device: where to compute; workers can only use "cpu".
        nifti: reads what was NIfTI, for settings of its own.
        dicom: reads what was DICOM.
        image: reads what was PNG, JPEG or BMP.
        array: reads what was NumPy.

    Raises:
        KeyFileError, UsageError: the key cannot be opened.
    """

    def __init__(
        self,
        key: PipelineKey,
        weights: str | None = None,
        device: str = "cpu",
        nifti: NibabelReader | None = None,
        dicom: PydicomReader | None = None,
        image: PILReader | None = None,
        array: NumpyReader | None = None,
    ) -> None:
        self._key, self._weights, self._device = KeyHolder(key), weights, device
        self.nifti = nifti or NibabelReader()
        self.dicom = dicom or PydicomReader()
        self.picture = image or PILReader()
        self.array = array or NumpyReader()

    def verify_suffix(self, filename: Sequence[str | PathLike[str]] | str | PathLike[str]) -> bool:
        """Whether all names end with .encdl."""
        return bool(is_supported_format(filename, ["encdl"]))

    def read(self, data: Sequence[str | PathLike[str]] | str | PathLike[str], **kwargs: Any) -> list[Loaded]:
        """Verify and decrypt one file or folder, or several that are to be stacked.

        Of what is encrypted, `get_data` raises what went wrong: `LoadImage` takes an error here for a sign that another
        reader should try, and tells what all of them said in the end.

        Raises:
            EncdlError: what is not encrypted, or settings.
        """
        if kwargs:
            raise UsageError(f"EncdlReader.read takes no {', '.join(kwargs)}: set them on the reader of the format")
        paths = [data] if isinstance(data, str | PathLike) else list(data)
        try:
            loaded = [self._load(path) for path in map(Path, paths)]
            kinds = {item.kind for item in loaded}
            if len(kinds) > 1:
                raise UsageError(f"files of {' and '.join(sorted(kinds))} do not go into one image")
        except EncdlError as error:
            if not all(map(_is_encrypted, map(Path, paths))):
                raise
            return [Loaded(_FAILED, error, str(paths[0]))]
        return loaded

    def get_data(self, img: Sequence[Loaded]) -> tuple[npt.NDArray[Any], Meta]:
        """Pixels and metadata of what `read` gave, as MONAI's reader of the format has them.

        Raises:
            ContainerError, WrongKeyError, WeightsError: as `encdl.decrypt`.
            UsageError: a folder without encrypted DICOM files or of several scans, or files of several formats.
        """
        if img[0].kind == _FAILED:
            raise img[0].image
        kind, images, names = img[0].kind, [item.image for item in img], [item.name for item in img]
        if kind in _NIFTI:
            nifti = copy.copy(self.nifti)  # it remembers names, and threads share this reader
            nifti.filenames = names
            return _result(nifti.get_data(images))
        if kind == "dicom":
            dicom = copy.copy(self.dicom)
            series = isinstance(images[0], list)
            dicom.filenames, dicom.has_series = names, series
            return _result(dicom.get_data(images if len(images) > 1 or not series else images[0]))
        if kind in _IMAGES:
            return _result(self.picture.get_data(images))
        if kind == "npy":
            return _result(self.array.get_data(images))
        if len(images) > 1:
            raise UsageError(f"files of {kind} are not stacked: load them one by one")
        array, meta = images[0]
        return array, dict(meta)

    def scans(self, folder: Path) -> list[Unit]:
        """What the encrypted files in a folder make: DICOM series, and other files one by one.

        Raises:
            KeyFileError, UsageError: the key cannot be opened.
        """
        sources = [Source(path, Path(path.name)) for path in sorted(folder.glob(f"*{container.SUFFIX}"))]
        return list(find_units(sources, self._opened, name_of(self._key.get())))

    def _load(self, path: Path) -> Loaded:
        if path.is_dir():
            return self._folder(path, self.scans(path))
        if not path.name.startswith(SERIES_PREFIX) or path.exists():
            return self._file(path)
        units = self.scans(path.parent)
        chosen = [unit for unit in units if unit.scan is not None and unit.name.name == path.name]
        if not chosen:
            raise UsageError(f"{path}: no such scan: {path.parent} holds {_listed(units)}")
        return self._folder(path, chosen)

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[Document]:
        with container.opened(path, self._key.get()) as reader:
            yield codec_of(reader.header, self._weights, self._device, path).decrypt(reader)

    def _file(self, path: Path) -> Loaded:
        with container.opened(path, self._key.get()) as reader:
            document = codec_of(reader.header, self._weights, self._device, path).decrypt(reader)
            if formats.is_whole(document):  # its slices are not asked for
                reader.verify()
            return Loaded(document.format, _image(document), str(path))

    def _folder(self, folder: Path, units: Sequence[Unit]) -> Loaded:
        if len(units) > 1 and all(unit.scan is not None for unit in units):
            raise UsageError(f"{folder}: holds {len(units)} scans: name one of {_listed(units)}")
        slices = [self._file(source.path) for unit in units for source in unit.sources]
        if not slices or any(item.kind != "dicom" for item in slices):
            raise UsageError(f"{folder}: is a folder, and not of encrypted DICOM files alone: name the files")
        if len(slices) == 1:
            return slices[0]
        return Loaded("dicom", [item.image for item in slices], [item.name for item in slices])


def _listed(units: Sequence[Unit]) -> str:
    """The names of scans, with how many slices each has."""
    counts = [1 if unit.scan is None else len(unit.scan.slices) for unit in units]
    named = zip(units[:_NAMED], counts, strict=False)
    shown = [f"{unit.path} ({count} slice{'s' * (count != 1)})" for unit, count in named]
    return ", ".join(shown) + (f" and {len(units) - _NAMED} more" if len(units) > _NAMED else "")


def _is_encrypted(path: Path) -> bool:
    folder = path.parent if path.name.startswith(SERIES_PREFIX) and not path.exists() else path
    return path.suffix == container.SUFFIX or any(folder.glob(f"*{container.SUFFIX}"))


def _image(document: Document) -> Any:
    if document.format == FORMAT:
        told = told_of(document)
        return array_of(document), told["meta"] or _plain(document, document.shape)
    if document.format == "npy":
        return array_of(document)
    if document.format not in (*_NIFTI, *_IMAGES, "dicom"):
        return _x_first(document)
    stream = io.BytesIO()
    formats.restore(document, stream)
    stream.seek(0)
    if document.format in _NIFTI:
        return _nifti(stream.getvalue())
    if document.format == "dicom":
        import pydicom  # noqa: PLC0415

        return pydicom.dcmread(stream, force=True)
    return Image.open(stream)


def _nifti(data: bytes) -> Any:
    import nibabel  # noqa: PLC0415

    kind = nibabel.Nifti2Image if 540 in (int.from_bytes(data[:4], order) for order in ("little", "big")) else None
    return correct_nifti_header_if_necessary((kind or nibabel.Nifti1Image).from_bytes(data))


def _x_first(document: Document) -> tuple[npt.NDArray[Any], Meta]:
    array = array_of(document)
    spatial = len(document.layout) - document.layout.endswith("C")
    axes = [*range(spatial - 1, -1, -1), *range(spatial, array.ndim)]
    array = np.ascontiguousarray(array.transpose(axes))
    return array, _plain(document, array.shape[:spatial])


def _plain(document: Document, spatial: tuple[int, ...]) -> Meta:
    colour = document.layout.endswith("C") and document.format != FORMAT
    return {MetaKeys.SPATIAL_SHAPE: np.asarray(spatial), MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if colour else float("nan")}


def _result(found: tuple[Any, Any]) -> tuple[npt.NDArray[Any], Meta]:
    array, meta = found
    if not isinstance(meta, dict):
        raise ImageFileError("MONAI's reader gave no metadata")
    return array, meta
