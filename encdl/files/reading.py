"""The reading layer of a file: its image at the readers' size, masked by itself, for hosts without a key.

    word size in bits 1 | bits of a level 1 | slices 4 | channels 4 | height 4 | width 4 | words...

A word is level + mask modulo 2^16 or 2^32 (`encdl.ciphers.reading_layer`), little-endian, in C order (S, C, H, W).
Of a volume that is read as a whole the highest bit of the word size is set, the sizes are channels, slices, height and
width, and the words (1, C, D, H, W).
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from encdl.files.container import PublicReader, parity
from encdl.files.container.chunk_grid import Grid
from encdl.files.container.header import COPY, TAG_BYTES, Header
from encdl.files.container.sections import MAX_SECTION_BYTES, READING, READING_PARITY
from encdl.files.formats.base import Document
from encdl.files.levels import Levels, Stored, tell_of_window
from encdl.keys.derivation import ImageKeys
from encdl.utils.errors import ContainerError, UsageError

Words = npt.NDArray[Any]

MAX_SIDE: Final = 512
MAX_WEIGHT: Final = 7
"""Of the integer maps that readers apply to a layer."""
_HEAD: Final = struct.Struct("<BBIIII")
_WHOLE: Final = 128
_MOST_LEVEL_BITS: Final = {16: 8, 32: 12}


class RepairedWarning(UserWarning):
    """A reading layer had hits, which its parity undid."""


@dataclass(frozen=True)
class Readable:
    """How to make a reading layer.

    Attributes:
        side: of its larger side at most, 1 to 512; a smaller image stays as large as it is.
        bits: of a word, 16 or 32.
        window: as of `encdl.files.levels.Levels`, centre and width in real values (Hounsfield units in CT), or a name.
            By default the levels are those of the type for uint8, and for other types from the smallest to the largest
            mean in the file.
    """

    side: int
    bits: int = 32
    window: tuple[float, float] | str | None = None

    def __post_init__(self) -> None:
        """Raise `UsageError` on a setting that cannot be."""
        if not 1 <= self.side <= MAX_SIDE:
            raise UsageError(f"a reading layer has sides of 1 to {MAX_SIDE} pixels, not {self.side}")
        if self.bits not in _MOST_LEVEL_BITS:
            raise UsageError(f"a reading layer has words of 16 or 32 bits, not {self.bits}")
        object.__setattr__(self, "window", Levels(window=self.window).window)

    def shape(self, grid: Grid) -> tuple[int, int, int, int]:
        """(S, C, H, W) of the layer of an array; `UsageError` if it is larger than a file holds."""
        shape = (grid.slices, grid.channels, *scaled(grid, (min(self.side, max(grid.height, grid.width)),) * 2))
        if layer_bytes(shape, self.bits) > MAX_SECTION_BYTES - TAG_BYTES:
            raise UsageError(
                f"a reading layer of {grid.slices:,} slices with sides up to {self.side} is more than a file holds "
                f"({MAX_SECTION_BYTES:,} bytes): give a smaller one"
            )
        return shape

    @property
    def placed(self) -> dict[str, Any]:
        """What the header of a file says of the layer: nothing."""
        return {}

    def context(self) -> dict[str, Any]:
        """All settings as plain values."""
        return vars(self)


def scaled(grid: Grid, size: Sequence[int]) -> tuple[int, int]:
    """Height and width of a grid's slices, as large as they fit into images of this height and width."""
    scale = min(size[0] / grid.height, size[1] / grid.width)
    return max(1, round(grid.height * scale)), max(1, round(grid.width * scale))


def layer_bytes(shape: Sequence[int], bits: int = 32) -> int:
    """Bytes of the section's content of a layer."""
    return _HEAD.size + int(np.prod(shape, dtype=np.int64)) * bits // 8


@dataclass(frozen=True)
class ReadingLayer:
    """A layer as it lies in a file; without the key it says nothing about the image.

    Attributes:
        level_bits: b, of a level: they lie in 0..2^b - 1.
        words: masked levels, uint16 or uint32 (S, C, H, W), or (1, C, D, H, W).
        whole: whether its parity tells that no word is wrong.
    """

    level_bits: int
    words: Words
    whole: bool = False

    @property
    def bits(self) -> int:
        """Of a word, 16 or 32."""
        return 8 * self.words.itemsize

    def to_bytes(self) -> bytes:
        """The section's content."""
        little = self.words.astype(f"<u{self.words.itemsize}", copy=False)
        flag = _WHOLE * (little.ndim == 5)
        return _HEAD.pack(self.bits | flag, self.level_bits, *little.shape[-4:]) + little.tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> ReadingLayer:
        """Undo `to_bytes`; raise `ContainerError` if that did not make it."""
        if len(content) >= _HEAD.size:
            flagged, level_bits, *shape = _HEAD.unpack_from(content)
            size, bits = len(content) - _HEAD.size, flagged & ~_WHOLE
            shape = [1, *shape] if flagged & _WHOLE else shape
            right = bits in _MOST_LEVEL_BITS and 1 <= level_bits <= _MOST_LEVEL_BITS[bits] and min(shape) >= 1
            if right and size * 8 == bits * math.prod(shape):
                words = np.frombuffer(content, f"<u{bits // 8}", offset=_HEAD.size).reshape(shape)
                return cls(level_bits, words.astype(f"u{bits // 8}", copy=False))
        raise ContainerError("its reading layer is damaged")

    @classmethod
    def mended(cls, reader: PublicReader) -> ReadingLayer | None:
        """The layer of a file, hits on it undone by its parity, with a `RepairedWarning`; None if there is none.

        Parity proves nothing: whoever wants proof checks the signature first, or reads with the key.

        Raises:
            ContainerError: it is cut, of no form, or has more hits than its parity undoes.
        """
        content, over = reader.section(READING), reader.section(READING_PARITY)
        if content is None:
            return None
        whole = over is not None and len(over) == parity.parity_length(len(content), *parity.LAYER)
        if over is not None and whole:
            found = parity.corrected(content, over, *parity.LAYER)
            if found is None:
                raise ContainerError(f"{reader.where}: its reading layer has too many hits to be repaired: {COPY}")
            if found != content:
                warnings.warn(f"{reader.where}: its reading layer was hit, and repaired", RepairedWarning, stacklevel=2)
                content = found
        return replace(cls.from_bytes(content), whole=whole)

    def levels(self, keys: ImageKeys) -> Words:
        """The image itself, of the words' shape and type: for whoever has the key."""
        from encdl.ciphers.reading_layer import reading_mask, remove_mask  # noqa: PLC0415 - loads PyTorch

        return remove_mask(self.words, reading_mask([keys], self.words.shape, self.bits)[0])

    @classmethod
    def of(cls, levels: Words, level_bits: int, keys: ImageKeys) -> ReadingLayer:
        """The layer of levels that are uint16 or uint32, of the words' shape."""
        from encdl.ciphers.reading_layer import add_mask, reading_mask  # noqa: PLC0415 - loads PyTorch

        mask = reading_mask([keys], levels.shape, 8 * levels.itemsize)[0]
        return cls(level_bits, add_mask(levels, mask))


class Resampled:
    """An array that comes slice by slice, at the size of its reading layer.

    Args:
        readable: how to make the layer.
        grid: of the array.
        dtype: name of its type.
        stored: what its values mean; by default themselves.
        clean: takes off bits that are not a value's own.

    Raises:
        UsageError: complex values, or more slices than a layer holds.
    """

    def __init__(
        self,
        readable: Readable,
        grid: Grid,
        dtype: str,
        stored: Stored | None = None,
        clean: Callable[[Words], Words] = lambda part: part,
    ) -> None:
        if np.dtype(dtype).kind == "c":
            raise UsageError("complex values have no reading layer: leave --readable out")
        self._readable, self._grid, self._dtype = readable, grid, dtype
        self._stored, self._clean = stored or Stored.of(dtype), clean
        self._means, self._next = np.empty(readable.shape(grid), np.float32), 0

    def add(self, part: npt.NDArray[Any]) -> None:
        """Take in the next slice: means of areas in double precision, row by row, for a slice may be large."""
        grid = self._grid
        values = self._clean(part).reshape(grid.height, grid.width, grid.channels)
        height, width = self._means.shape[2:]
        rows = np.empty((height, grid.width, grid.channels))
        for row, mean in enumerate(rows):
            top, end = row * grid.height // height, -(-(row + 1) * grid.height // height)
            np.mean(values[top:end], axis=0, dtype=np.float64, out=mean)
        import torch  # noqa: PLC0415 - hardly any file has a layer

        image = torch.from_numpy(rows).permute(2, 0, 1)[None]
        self._means[self._next] = torch.nn.functional.interpolate(image, (height, width), mode="area")[0].numpy()
        self._next += 1

    def layer(self, keys: ImageKeys) -> ReadingLayer:
        """The masked layer of all slices."""
        stored, rule = self._stored, Levels(window=self._readable.window)
        tell_of_window(rule.window, stored)
        whole = rule.window is None and self._dtype != "uint8"
        low, high = self._ends() if whole else rule.bounds(None, stored)
        level_bits = level_bits_of(self._means.shape, self._readable.bits)
        highest = 2**level_bits - 1
        levels = np.empty(self._means.shape, f"u{self._readable.bits // 8}")
        for mean, level in zip(self._means, levels, strict=True):  # a slice at a time: all may be large
            real = np.nan_to_num((self._real(mean) - low) * (highest / max(high - low, 1e-30)), nan=0.0)
            found = np.rint(np.clip(real, 0, highest))
            level[:] = highest - found if stored.inverted else found  # dense is bright, as readers learn it
        return ReadingLayer.of(levels, level_bits, keys)

    def _real(self, mean: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return mean.astype(np.float64) * self._stored.slope + self._stored.intercept

    def _ends(self) -> tuple[float, float]:
        """The smallest and the largest finite mean."""
        ends = (real[np.isfinite(real)] for real in map(self._real, self._means))
        found = [end for real in ends if real.size for end in (float(real.min()), float(real.max()))]
        return (min(found), max(found)) if found else (0.0, 1.0)


def level_bits_of(shape: Sequence[int], bits: int) -> int:
    """Bits b of a level in a layer (S, C, H, W): in 32 bits 12, or fewer if that many pixels may be summed up.

    In 32 bits no sum of a slice's levels with weights of up to `MAX_WEIGHT` leaves -2^31..2^31 - 1, so that it is known
    exactly modulo 2^32. In 16 bits b is 8, and the magnitudes of the weights in a sum must not exceed 128.
    """
    most = _MOST_LEVEL_BITS[bits]
    if bits == 16:
        return most
    pixels = int(np.prod(shape[1:], dtype=np.int64))
    return next(b for b in range(most, 0, -1) if MAX_WEIGHT * pixels * (2**b - 1) < 2**31)


class Whole(Protocol):
    """Makes a reading layer of a whole document: `encdl.files.fitted.Fitted`."""

    def made(self, document: Document, grid: Grid) -> tuple[Words, int]:
        """Its levels and their bits."""
        ...


def layer_of(
    readable: Readable | Whole | None,
    layer: tuple[Words, int, Mapping[str, Any]] | None,
    header: Header,
    document: Document,
    keys: ImageKeys,
) -> tuple[Resampled | None, int, bytes]:
    """What makes the section of slices as they are read, and the bytes that it will have; or the whole section.

    Args:
        readable: How to make the layer.
        layer: One that is there already, without `readable`.
        header: Of the file.
        document: What it holds.
        keys: The file's sub-keys.
    """
    if isinstance(readable, Readable):
        from encdl.files.scans.headers import image_of  # noqa: PLC0415 - loads formats

        stored, clean, _ = image_of(Path(document.format), document)
        resampled = Resampled(readable, header.grid, header.dtype, stored, clean)
        return resampled, layer_bytes(readable.shape(header.grid), readable.bits), b""
    if readable is not None:
        levels, bits = readable.made(document, header.grid)
    else:
        assert layer is not None
        levels, bits, _ = layer
    content = ReadingLayer.of(levels, bits, keys).to_bytes()
    return None, len(content), content
