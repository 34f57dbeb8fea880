"""Files that data sets are made of: images, DICOM series and NIfTI volumes, encrypted or not, and their levels.

What is encrypted is decrypted in memory, and nothing of it is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from encdl.files import container, file_names, formats, images
from encdl.files.codecs import codec_of
from encdl.files.folders import Left, Source, inside
from encdl.files.formats import has_dicom_mark
from encdl.files.formats.base import Document, array_of
from encdl.files.formats.verbatim import CARRIED
from encdl.files.levels import DEFAULT, ModalityLevels, Stored
from encdl.files.scan_files import Unit, find_units, single
from encdl.files.scans import Volume, image_of
from encdl.keys.key_source import KeySource
from encdl.utils.errors import DataError, EncdlError, UsageError
from encdl.utils.messages import warn

NAMED = 5
"""Files that are left out are named up to this number."""
LUMINANCE = (0.299, 0.587, 0.114)
"""Share of red, green and blue in grey (ITU-R BT.601)."""
SCANS = (".dcm", ".dicom", ".ima", ".nii", ".nii.gz")
KINDS = f"{', '.join(images.READABLE_SUFFIXES)}, DICOM, NIfTI"
_MARKED = 134


@dataclass(eq=False)
class FolderFiles:
    """Opens the files of a data set.

    Attributes:
        key: Where the key or grant is that opens `.encdl` files; None where there are none.
        levels: How stored integers become levels.
    """

    key: KeySource | None = None
    levels: ModalityLevels = DEFAULT
    _opener: Any = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_opener": None}  # another process opens the key anew

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[Document]:
        """The content of a file; its slices can be read as long as the context lasts.

        Raises:
            EncdlError: It cannot be read, is encrypted and there is no key, or the key is another.
        """
        if not file_names.is_encrypted(path):
            yield formats.load(path)
            return
        if self.key is None:
            raise UsageError(f"{path}: is encrypted: give its key or grant, as --data.key.path K")
        with container.opened(path, self._opened_key(self.key)) as reader:
            if reader.metadata is not None and reader.metadata.format == CARRIED:
                raise DataError(f"{path}: holds no image: another file was sealed there as it is")
            yield codec_of(reader.header, None, "cpu", path).decrypt(reader)

    def _opened_key(self, key: KeySource) -> Any:
        if self._opener is None:
            self._opener = key.open(key.ask)
        return self._opener

    def wanted(self, path: Path) -> bool:
        """Whether a file of a folder is one that training reads, by its name or DICOM's mark."""
        name = path.name.lower()
        if file_names.is_encrypted(path):
            return self.key is not None
        return name.endswith((*images.READABLE_SUFFIXES, *SCANS)) or (
            not path.suffix and name != "dicomdir" and _is_marked(path)
        )

    def below(self, folder: Path) -> list[Path]:
        """All such files below `folder`, hidden ones left out; tells of others.

        Raises:
            DataError: There is none, or a part of the folder cannot be read.
        """
        left: list[Left] = []

        def hidden(path: Path) -> bool:
            return any(part.startswith(".") for part in path.relative_to(folder).parts)

        found = sorted(
            source.path for source in inside(folder, lambda path: not hidden(path) and self.wanted(path), left)
        )
        for one in left:
            if one.why.startswith("cannot"):
                raise DataError(f"{one.path}: {one.why}: check its permissions, or move it out of {folder}")
        others = [one.path for one in left if not hidden(one.path)]
        sealed = any(file_names.is_encrypted(path) for path in others)
        hint = "; training reads .encdl files with --data.key.path K" if sealed and self.key is None else ""
        if not found:
            raise DataError(f"{folder}: holds no images ({KINDS}){hint}")
        if others:
            more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
            named = ", ".join(map(str, others[:NAMED]))
            warn(
                f"{folder}: {len(others)} of {len(others) + len(found)} files are left out, for training reads "
                f"{KINDS} alone: {named}{more}{hint}"
            )
        return found

    def units(self, folder: Path) -> list[Unit]:
        """The images and scans that the files below a folder make, in the order of their first files; or of one file.

        Raises:
            EncdlError: There are none, or a header cannot be read: the first is named, and the others are counted.
        """
        if self.key is not None:
            self._opened_key(self.key)  # what is wrong with it is wrong with no file
        alone = folder.is_file()
        paths, root = ([folder], folder.parent) if alone else (self.below(folder), folder)
        failed: list[tuple[Path, EncdlError]] = []

        @contextlib.contextmanager
        def opened(path: Path) -> Iterator[Document]:
            try:
                with self.opened(path) as document:
                    yield document
            except EncdlError as error:
                failed.append((path, error))
                raise

        sources = [Source(path, path.relative_to(root)) for path in paths]
        flat = [source.path.suffix.lower() in images.READABLE_SUFFIXES for source in sources]
        units = [single(source) for source, is_flat in zip(sources, flat, strict=True) if is_flat]
        units += find_units(
            [source for source, is_flat in zip(sources, flat, strict=True) if not is_flat],
            opened,
            lambda _, path: path.stem,
        )
        if failed and alone:
            raise failed[0][1]
        if failed:
            raise_counted(failed, len(paths))
        return sorted(units, key=lambda unit: unit.sources[0].path)

    def volume(self, unit: Unit) -> Volume:
        """A scan; what is wrong with it is told."""
        volume = unit.load(self.opened)
        for problem in volume.problems:
            if not unit.single or "at one position" in problem:  # of one image nobody wants to know its grid
                warn(f"{unit.path}: {problem}")
        return volume

    def read(self, path: Path) -> tuple[npt.NDArray[Any], Stored]:
        """A single image (H, W) or (H, W, C) in stored integers, and what they mean."""
        if path.suffix.lower() in images.READABLE_SUFFIXES:
            array = images.read(path)
            return array, Stored.of(array.dtype)
        with self.opened(path) as document:
            stored, bits, _ = image_of(path, document)
            array = bits(array_of(document).reshape(document.slice_shape))
        return array.astype(array.dtype.newbyteorder("="), copy=False), stored


PLAIN = FolderFiles()
"""Files without a key, at the default levels."""


def raise_counted(failed: Sequence[tuple[Path, EncdlError]], count: int) -> None:
    """Raise the first of several errors, and say of how many files it was."""
    path, error = failed[0]
    said = str(error).removeprefix(f"{path}: ")
    raise type(error)(f"{path}: {said} ({len(failed)} of {count} files cannot be read)") from None


def _is_marked(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return has_dicom_mark(stream.read(_MARKED))
    except OSError:
        return False


@dataclass(frozen=True)
class ReadImage:
    """Reads a file as uint8 (channels, H, W).

    Attributes:
        channels: 1 or 3.
        least: An image with fewer rows or columns is refused.
        files: Opens it.
    """

    channels: int
    least: int = 0
    files: FolderFiles = PLAIN

    def __call__(self, path: Path | npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Read `path`; an image that was read before stays as it is.

        Raises:
            ImageFileError: It is no readable image.
            DataError: It is too small, or has neither grey nor colour.
        """
        if not isinstance(path, Path):
            return path
        array, stored = self.files.read(path)
        return self.checked(path, converted(path, array, self.channels, stored, self.files.levels))

    def checked(self, path: Path, planes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The image (C, H, W), if it is large enough."""
        height, width = planes.shape[1:]
        if min(height, width) < self.least:
            raise DataError(
                f"{path}: is {height} x {width} pixels, smaller than the training crop of {self.least}: "
                "remove it, or set data.init_args.crop lower"
            )
        return planes


def read_as_it_is(path: Path) -> npt.NDArray[np.uint8]:
    """Read a file as uint8 (1, H, W) if it is grey, (3, H, W) if it has colour.

    Raises:
        ImageFileError: It is no readable image.
        DataError: It has neither grey nor colour.
    """
    array, stored = PLAIN.read(path)
    return converted(path, array, 3 if array.ndim == 3 and array.shape[2] >= 3 else 1, stored)


def converted(
    path: Path, array: npt.NDArray[Any], channels: int, stored: Stored, levels: ModalityLevels = DEFAULT
) -> npt.NDArray[np.uint8]:
    """An array (H, W) or (H, W, C) of stored integers as uint8 (channels, H, W)."""
    planes = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    if len(planes) > 4:
        raise DataError(f"{path}: has {len(planes)} channels: training takes grey, RGB and RGBA")
    planes = levels.choose(stored).to_bytes(planes[: 1 if len(planes) < 3 else 3], stored)
    if len(planes) == channels:
        return np.array(planes, order="C")  # what was read may be read-only
    if channels == 3:
        return np.repeat(planes, 3, axis=0)
    grey = np.tensordot(np.asarray(LUMINANCE), planes.astype(np.float64), axes=1)
    return np.asarray(grey.round().astype(np.uint8)[None])
