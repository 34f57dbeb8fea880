"""The additive mask of a reading layer: an image at the readers' size, held in Z_2^16 or Z_2^32.

    masked = image + mask     modulo 2^bits

The mask is uniform and comes from key and nonce alone, from a sub-key that nothing else uses. So a masked layer says
nothing about the image, and for any integer matrix W whoever has the key can tell W mask without seeing the file:
W masked - W mask = W image (`encdl.keys.functional`). In 32 bits no sum of W image wraps, so W may average.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from torch import Tensor

from encdl.keys.derivation import SECRET_BYTES, ImageKeys
from encdl.keys.sequences import DEFAULT_MAP, byte_sequence
from encdl.utils.errors import UsageError

Residues = TypeVar("Residues", npt.NDArray[Any], Tensor)
"""Whole numbers of one word a pixel: an unsigned array, or a tensor of an unsigned type."""

BITS: Final = (16, 32)
MAX_AXES: Final = 8

_INFO: Final = b"encdl reading layer v1\0"
_SIGNED: Final = {torch.uint16: torch.int16, torch.uint32: torch.int32}


def reading_mask(keys: Sequence[ImageKeys], shape: Sequence[int], bits: int = 32, layer: int = 0) -> npt.NDArray[Any]:
    """The masks of one reading layer of each image.

    The keystream is `DEFAULT_MAP`, a chaotic map XOR ChaCha20, low byte first. Its seed is HKDF-Expand-SHA256 of
    `ImageKeys.reading` with word size, number and shape of the layer as info: layers that differ in one of them have
    unrelated masks. Two layers that agree in all of them must never both be written: that would reuse a keystream.

    Args:
        keys: the sub-keys of each image.
        shape: of the layer, such as (C, H, W).
        bits: of a word, 16 or 32.
        layer: its number in the file, 0 to 255.

    Returns:
        uint16 or uint32 array (len(keys), *shape), uniform.

    Raises:
        UsageError: a word of another size, or a shape or number that cannot be.
    """
    info = _INFO + _encoded(shape, bits, layer)
    seeds = [HKDFExpand(SHA256(), SECRET_BYTES, info).derive(each.reading) for each in keys]
    count = int(np.prod(shape, dtype=np.int64))
    stream = byte_sequence(DEFAULT_MAP, seeds, count * bits // 8)
    words = stream.view(f"<u{bits // 8}").astype(f"u{bits // 8}", copy=False)
    return words.reshape(len(keys), *shape)


def add_mask(image: Residues, mask: Residues) -> Residues:
    """The masked layer: image + mask modulo 2^bits.

    Args:
        image: whole numbers from 0 on, of any integer type, of the mask's shape.
        mask: of `reading_mask`; `torch.from_numpy` makes a tensor of it.

    Returns:
        Of the mask's type and shape, on its device.
    """
    return _combined(image, mask, 1)


def remove_mask(masked: Residues, mask: Residues) -> Residues:
    """The image again, of the mask's type: masked - mask modulo 2^bits; arguments as of `add_mask`."""
    return _combined(masked, mask, -1)


def _combined(one: Residues, mask: Residues, sign: int) -> Residues:
    if one.shape != mask.shape:
        raise UsageError(f"a mask of shape {tuple(mask.shape)} does not fit a layer of {tuple(one.shape)}")
    if isinstance(mask, Tensor):
        # Torch adds no unsigned words; in two's complement the signed ones of the same size are the same residues.
        signed = _SIGNED[mask.dtype]
        levels = one.view(signed) if one.dtype == mask.dtype else one.to(signed)
        return torch.add(levels, mask.view(signed), alpha=sign).view(mask.dtype)
    words: npt.NDArray[Any] = one.astype(mask.dtype, copy=False)
    combined: npt.NDArray[Any] = np.add(words, mask) if sign > 0 else np.subtract(words, mask)
    return combined


def _encoded(shape: Sequence[int], bits: int, layer: int) -> bytes:
    if bits not in BITS:
        raise UsageError(f"a reading layer has words of 16 or 32 bits, not {bits}: choose one of them")
    if not 0 <= layer < 256:
        raise UsageError(f"a file has reading layers 0 to 255, not {layer}: choose one of them")
    if not 1 <= len(shape) <= MAX_AXES or not all(1 <= side < 1 << 32 for side in shape):
        raise UsageError(f"no reading layer has the shape {tuple(shape)}: give 1 to {MAX_AXES} sides from 1 on")
    return bytes((bits, layer, len(shape))) + b"".join(int(side).to_bytes(4, "little") for side in shape)
