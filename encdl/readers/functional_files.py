"""Functional keys of `.encdl` files: made with the key, used without one.

Both sides read the file's reading layer (`encdl.files.reading`). Whoever makes a functional key verifies the file's
header first; who uses it has no key, and so verifies what is signed. A functional key is for all slices of a file, each
of which a reader takes by itself.
"""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from encdl.ciphers.reading_layer import reading_mask
from encdl.files import container
from encdl.files.container import Header, PublicReader
from encdl.files.container.chunk_grid import Grid
from encdl.files.container.sections import MAX_SECTION_BYTES
from encdl.files.fitted import Fitted, placed
from encdl.files.levels import Levels, ModalityLevels, Stored
from encdl.files.reading import ReadingLayer, scaled
from encdl.files.scans import UNKNOWN_GRID, Geometry, Volume
from encdl.keys.functional import FunctionalKey
from encdl.keys.functional_map import FunctionalMap, centred
from encdl.keys.key import Opener
from encdl.keys.signing import PublicKey, SigningKey
from encdl.readers.answers import Answer, Classification, Segmentation
from encdl.readers.functional import FunctionalStem
from encdl.readers.reader import LoadedReader, load
from encdl.utils.errors import EncdlError, UsageError, WeightsError
from encdl.utils.frames import middle

Words = npt.NDArray[Any]


def functional_stem(loaded: LoadedReader) -> FunctionalStem:
    """The stem of a reader that functional keys are made for.

    Raises:
        WeightsError: The reader is of another kind, or reads ciphertexts themselves.
    """
    stem = loaded.reader.stem
    if not isinstance(stem, FunctionalStem) or stem.form != "layer":
        raise WeightsError(
            f"the reader was trained on view {loaded.view} and takes no functional key: give one that was trained with "
            "view Functional, form layer"
        )
    return stem


def functional_map(loaded: LoadedReader) -> FunctionalMap:
    """The map of a reader that functional keys of files are made for.

    Raises:
        WeightsError: As `functional_stem`.
    """
    return functional_stem(loaded).map.frozen()


def readable_for(loaded: LoadedReader, window: tuple[float, float] | str | None = None) -> Fitted:
    """How to make the reading layer that a reader takes; with another window than the reader's own rules.

    Raises:
        WeightsError: As `functional_stem`.
    """
    levels = loaded.levels if window is None else ModalityLevels.from_dict(Levels(window=window))
    return Fitted(functional_map(loaded).size, levels, loaded.geometry, window is not None)


def grant_functional(
    path: str | os.PathLike[str],
    opener: Opener,
    loaded: LoadedReader,
    *,
    noise: float = 0.0,
    signer: SigningKey | None = None,
    expires: datetime | None = None,
) -> FunctionalKey:
    """The functional key of a file for one reader.

    Args:
        path: An `.encdl` file with a reading layer.
        opener: The key, or a grant for the file or its study.
        loaded: The reader.
        noise: Standard deviation in the layer's levels; see `FunctionalKey.issue`.
        signer: Signs it, so that hosts can tell who made it.
        expires: When EncDL begins to refuse it.

    Raises:
        ContainerError: The file is missing, or its header or layer was changed.
        UsageError: It has no reading layer that this reader reads.
        WrongKeyError: The key or grant is for something else.
        WeightsError: The reader takes no functional keys.
    """
    function = functional_map(loaded)
    with container.opened(path, opener) as reader:
        _layer(reader, function)
        _check_geometry(reader.header, loaded.geometry, path)
        return grant_from_header(
            reader.head, opener, function, noise=noise, signer=signer, expires=expires, where=reader.where
        )


def grant_from_header(
    head: bytes,
    opener: Opener,
    function: FunctionalMap,
    *,
    noise: float = 0.0,
    signer: SigningKey | None = None,
    expires: datetime | None = None,
    where: object = "header",
) -> FunctionalKey:
    """The functional key of a file of which only the header is here: what a key server needs.

    The mask depends on the layer's shape too, so that a layer of another shape gets the numbers of an unrelated mask.

    Args:
        head: The file's first bytes, as `PublicReader.head` gives them; their tag is verified.
        opener: The key, or a grant for the file or its study.
        function: The reader's map.
        noise: See `FunctionalKey.issue`, as for the others.
        signer: Signs it.
        expires: When EncDL begins to refuse it.
        where: What errors call the file.

    Raises:
        ContainerError: They are no header, or were changed.
        UsageError: The file has other channels than the map, or more slices than a layer of this size holds.
        WrongKeyError: The key or grant is for something else.
    """
    header, keys = container.verified_header(head, opener, where)
    mask = reading_mask([keys], layer_shape(header, function, where), function.bits)[0]
    digest = hashlib.sha256(head).digest()
    return FunctionalKey.issue(function, mask, keys, digest, noise=noise, signing_key=signer, expires=expires)


def layer_shape(header: Header, function: FunctionalMap, where: object) -> tuple[int, ...]:
    """Of the words that a map reads in a file with this header: (S, C, H, W), or (1, C, D, H, W) of a volume.

    Raises:
        UsageError: The file has other channels than the map, no layer that it reads, or more slices than a layer of
            this size holds.
    """
    size, grid, found = function.size, header.grid, tuple(header.reading.get("size", ()))
    check_channels(grid, function.weights.shape[1], where)
    if len(size) == 3 or found:
        if found != size:
            layer = f"its reading layer is a volume of {_by(found)}" if found else "has no reading layer of a volume"
            takes = f"volumes of {_by(size)}" if len(size) == 3 else "images"
            raise UsageError(f"{where}: {layer}, and the reader takes {takes}: encrypt it with --readable READER")
        return (1, grid.channels, *size)
    shape = (grid.slices, grid.channels, *scaled(grid, size))
    if math.prod(shape) * function.bits // 8 > MAX_SECTION_BYTES:
        raise UsageError(
            f"{where}: holds {grid.slices:,} slices, of which no file has a reading layer of this reader's size"
        )
    return shape


def check_channels(grid: Grid, channels: int, where: object) -> None:
    """Refuse, by a `UsageError`, a file of other channels than a reader takes."""
    if grid.channels != channels:
        raise UsageError(f"{where}: has {grid.channels} channels, the reader takes {channels}")


class FunctionalPredictor:
    """Reads encrypted files with functional keys; there is no key in this process.

    Args:
        loaded: The reader.
        server: The key server's public key: functional keys that it did not sign are refused.
        owner: The owner's public key: files that they did not sign, or that were changed since, are refused.

    Raises:
        WeightsError: The reader takes no functional keys.
    """

    def __init__(self, loaded: LoadedReader, server: PublicKey | None = None, owner: PublicKey | None = None) -> None:
        self.function = functional_map(loaded)
        self.stem = functional_stem(loaded)
        self.reader, self.classes, self.server, self.owner = loaded.reader, loaded.classes, server, owner
        self.per_pixel, self.geometry = loaded.reader.backbone.per_pixel, loaded.geometry

    @property
    def reads_scans(self) -> bool:
        """As `encdl.readers.predictor.Predictor.reads_scans`."""
        return self.per_pixel or bool(self.geometry.fit)

    @property
    def reads_volumes(self) -> bool:
        """Whether it takes a volume as a whole."""
        return len(self.function.size) == 3

    @classmethod
    def load(
        cls,
        checkpoint: str | os.PathLike[str],
        *,
        device: str = "cpu",
        server: PublicKey | None = None,
        owner: PublicKey | None = None,
    ) -> FunctionalPredictor:
        """Load a checkpoint of a reader; errors name it."""
        path = Path(checkpoint)
        loaded = load(path, device)
        try:
            return cls(loaded, server, owner)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from None

    def read(
        self,
        path: str | os.PathLike[str],
        key: FunctionalKey | Callable[[bytes], FunctionalKey],
        progress: Callable[[float], object] = lambda share: None,
    ) -> Answer | Classification | Segmentation:
        """Read one file; of several slices as `read_scan`.

        Args:
            path: An `.encdl` file with a reading layer.
            key: Of this file, for this reader; or what gives it for the file's header, and is asked only for a file
                that this reader can read, as its owner signed it.
            progress: Is told what share more of several slices is done.

        Returns:
            Logits, of a segmenter at the layer's size; the lowest byte of the layer's words stands for the ciphertext.
            Of a segmenter of volumes the mask, on the layer's own grid unless that has the voxels of the file.

        Raises:
            ContainerError: Missing, damaged, or not as its owner signed it.
            WrongKeyError: The functional key is for another file or reader, is over, or is not the server's.
            UsageError: The file has no reading layer that this reader reads.
        """
        header, layer, numbers = self._seen(path, key)
        if len(numbers) > 1:
            found = self._slices(numbers, layer, header.grid, 1.0, progress)
            return self._scan(found, [Path(path)] * len(found))
        logits = self._logits(torch.from_numpy(numbers), layer)
        if self.reads_volumes and self.per_pixel:
            return self._placed(logits.argmax(0).to(torch.uint8).numpy(), header, Path(path))
        return Answer(logits, (layer.words[0] & 255).astype(np.uint8))

    def logits(self, path: str | os.PathLike[str], key: FunctionalKey) -> torch.Tensor:
        """What the reader says of a file of one slice, (classes, ...) float32; errors as in `read`."""
        _, layer, numbers = self._seen(path, key)
        return self._logits(torch.from_numpy(numbers), layer)

    def read_scan(
        self,
        paths: Sequence[Path],
        key_of: Callable[[Path, bytes], FunctionalKey],
        progress: Callable[[float], object] = lambda share: None,
    ) -> Answer | Classification | Segmentation:
        """Read a scan slice by slice, one file's reading layer in memory at a time.

        Args:
            paths: Its files, in order; each has slices of the same size.
            key_of: The functional key of a file, with this header.
            progress: Is told what share more of it is done.

        Returns:
            Of a classifier the logits of each slice; of a segmenter a mask of as many voxels as the files hold, whose
            place in the patient nobody knows without a key.

        Raises:
            ContainerError, WrongKeyError, UsageError: As `read`.
        """
        if len(paths) == 1:
            return self.read(paths[0], partial(key_of, paths[0]), progress)
        if self.reads_volumes:
            raise UsageError(
                f"{paths[0]}: is one of {len(paths)} files of a series, and the reader takes volumes: put the slices "
                "into one file, NIfTI or multi-frame DICOM, and encrypt that with --readable READER"
            )
        found: list[Words] = []
        files: list[Path] = []
        for path in paths:
            header, layer, numbers = self._seen(path, partial(key_of, path), several=True)
            found += self._slices(numbers, layer, header.grid, 1 / len(paths), progress)
            files += [path] * len(numbers)
        return self._scan(found, files)

    def _seen(
        self, path: str | os.PathLike[str], key: FunctionalKey | Callable[[bytes], FunctionalKey], several: bool = False
    ) -> tuple[Header, ReadingLayer, npt.NDArray[np.int64]]:
        """A file's header, its layer, and what a host learns of each slice, for one of several files or alone."""
        with container.opened_without_key(path, mend=self.owner is None) as reader:
            if self.owner is not None:
                reader.check_signature(self.owner)
            layer, header = _layer(reader, self.function), reader.header
            _check_geometry(header, self.geometry, path)
            slices = not self.reads_volumes and (several or header.grid.slices > 1)
            if slices and self.geometry.orientation is not None:
                raise UsageError(
                    f"{path}: the reader learnt from scans turned to {self.geometry.orientation}, and a reading layer "
                    "lies as its file does: train one with orientation null"
                )
            try:
                key = key if isinstance(key, FunctionalKey) else key(reader.head)
                key.check(self.function, hashlib.sha256(reader.head).digest(), self.server)
                return header, layer, centred(key.seen(self.function, layer.words))
            except EncdlError as error:
                raise type(error)(f"{path}: {error}") from None

    def _slices(
        self,
        numbers: npt.NDArray[np.int64],
        layer: ReadingLayer,
        grid: Grid,
        share: float,
        progress: Callable[[float], object],
    ) -> list[Words]:
        """Logits of each slice; of a segmenter its mask, at the file's own size."""
        found: list[Words] = []
        for number in range(len(numbers)):
            logits = self._logits(torch.from_numpy(numbers[number : number + 1]), layer)
            if self.per_pixel:
                # The layer has the means of areas: its pixels' corners are the image's.
                logits = F.interpolate(logits[None], (grid.height, grid.width), mode="bilinear", align_corners=False)[0]
                found.append(logits.argmax(0).to(torch.uint8).numpy())
            else:
                found.append(logits.numpy())
            progress(share / len(numbers))
        return found

    def _scan(self, found: Sequence[Words], files: Sequence[Path]) -> Classification | Segmentation:
        if len({each.shape for each in found}) > 1:
            raise UsageError(f"{files[0]}: the files of this scan have several sizes: read each by itself")
        mask = np.stack(found)
        if not self.per_pixel:
            return Classification(torch.from_numpy(mask), tuple(files), tuple(range(len(files))))
        unseen = np.broadcast_to(np.uint8(0), mask.shape)
        volume = Volume(unseen, UNKNOWN_GRID, (Stored.of("uint8"),) * len(mask), tuple(files), known=False)
        return Segmentation(mask, unseen, volume)

    def _placed(self, mask: npt.NDArray[np.uint8], header: Header, path: Path) -> Segmentation:
        """The mask of a volume: on the file's voxels, if they were not turned or resampled, or on the layer's grid."""
        if self.geometry.orientation is None and self.geometry.spacing is None:
            grid = header.grid
            mask = mask[middle((grid.slices, grid.height, grid.width), mask.shape)]
            return cast(Segmentation, self._scan([*mask], [path] * len(mask)))
        warnings.warn(
            "masks of volumes are on the grid of the reading layer: how a scan lies is sealed, and whoever has the key "
            "puts its mask there with encdl decrypt --mask",
            stacklevel=2,
        )
        found = cast(Segmentation, self._scan([*mask], [path] * len(mask)))
        known = bool(self.geometry.spacing and all(self.geometry.spacing))
        return replace(found, volume=replace(found.volume, affine=self.geometry.own_affine(), known=known))

    @torch.no_grad()
    def _logits(self, numbers: torch.Tensor, layer: ReadingLayer) -> torch.Tensor:
        device = next(self.reader.parameters()).device
        features = self.stem.of_centred(numbers.to(device), layer.level_bits, layer.whole)
        logits: torch.Tensor = self.reader.backbone(features)[0].float().cpu()
        size = self.function.size
        return logits[middle(layer.words.shape[-len(size) :], size)] if self.per_pixel else logits


def _layer(reader: PublicReader, function: FunctionalMap) -> ReadingLayer:
    """A file's reading layer, if the map can read it."""
    where = reader.where
    layer = ReadingLayer.mended(reader)
    side = max(function.size)
    if layer is None:
        raise UsageError(f"{where}: has no reading layer: encrypt it with --readable {side}")
    wanted = layer_shape(reader.header, function, where)
    if layer.words.shape != wanted or layer.bits != function.bits:
        start = int(len(layer.words) == wanted[0])  # of images that are as many each is told of
        raise UsageError(
            f"{where}: its reading layer is {_by(layer.words.shape[start:])} in {layer.bits} bits, the reader takes "
            f"{_by(wanted[start:])} in {function.bits}: encrypt it with --readable READER"
        )
    return layer


def _check_geometry(header: Header, geometry: Geometry, where: object) -> None:
    """Refuse the layer of a volume that lies otherwise than a reader wants."""
    wanted = placed(tuple(header.reading.get("size", ())), geometry)
    if header.reading and header.reading != wanted:
        found, other = (
            f"{each['orientation'] or 'as the file'}, {_by(each['spacing']) or 'no'} mm"
            for each in (header.reading, wanted)
        )
        raise UsageError(
            f"{where}: its reading layer lies {found}, and the reader wants {other}: encrypt it with --readable READER"
        )


def _by(shape: Sequence[float]) -> str:
    return "x".join(f"{side:g}" for side in shape)
