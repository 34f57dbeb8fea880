"""The key planes of one image by algebra, for whoever knows the image and its ciphertext.

With eight planes exactly one stack of them leads `agile`, `keystream` and `coupled` from an image to a ciphertext: that
is why a ciphertext alone tells nothing, and why a pair tells all planes of this image. What they are worth for the
next image depends on the nonce.

Each of these ciphers adds the key byte of a pixel to a number that the other pixels decide. Pixels of the *leading*
phases get theirs from the masks of the others, those of the others from the planes of the leading ones. So both follow
from masks by encrypting three times with planes of the attacker's choice, whatever the networks are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from encdl.ciphers.base import Cipher
from encdl.keys.planes import MAX_PLANES

LEADING: Final[Mapping[str, tuple[int, ...]]] = {"agile": (1, 2), "coupled": (1, 2, 3), "keystream": (0, 1, 2, 3)}
"""Phases (`encdl.ciphers.nn.phases`) whose key bytes follow from the masks of the other phases, by cipher."""


def solvable(cipher: Cipher) -> bool:
    """Whether masks lead back to key planes: there is an algebra for this cipher, and it has all eight planes."""
    return cipher.name in LEADING and cipher.planes == MAX_PLANES


def leading(cipher: Cipher, image: Tensor) -> Tensor:
    """Which pixels lie in the leading phases: bool (1, 1, H, W) on the image's device."""
    height, width = image.shape[-2:]
    rows, columns = (torch.arange(size, device=image.device) % 2 for size in (height, width))
    phase = 2 * rows.unsqueeze(1) + columns
    return torch.isin(phase, torch.tensor(LEADING[cipher.name], device=image.device)).view(1, 1, height, width)


def leading_bytes(cipher: Cipher, mask: Tensor, ciphertext: Tensor) -> Tensor:
    """Key bytes, right in the leading phases wherever the masks of all pixels around are right.

    Args:
        cipher: A solvable one.
        mask: uint8 (B, C, H, W).
        ciphertext: uint8 of the same shape; of ciphers whose masks follow from the key alone it decides nothing.

    Returns:
        uint8 (B, C, H, W); what it holds in the other phases makes the mask there that was given.
    """
    first = leading(cipher, mask)
    nothing = torch.zeros_like(mask)
    others = torch.where(first, nothing, mask - cipher.field(ciphertext, nothing))
    return torch.where(first, mask - cipher.field(ciphertext, others), others)


def corrected(cipher: Cipher, mask: Tensor, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
    """The key bytes that give a mask, if those around a pixel are the ones given.

    Right in the phases that do not lead if the leading ones are given; right everywhere the mask is if all are given.

    Args:
        cipher: A solvable one.
        mask: uint8 (B, C, H, W).
        ciphertext: See `leading_bytes`.
        key_planes: uint8 (B, C, H, W).
    """
    return mask - cipher.field(ciphertext, key_planes) + key_planes


def planes_of_pair(cipher: Cipher, image: Tensor, ciphertext: Tensor) -> Tensor:
    """The one stack of eight key planes that leads from an image to its ciphertext.

    Args:
        cipher: A solvable one.
        image: uint8 (B, C, H, W), any size.
        ciphertext: uint8 of the same shape.

    Returns:
        uint8 (B, C, H, W), packed.
    """
    mask = ciphertext - image
    found = leading_bytes(cipher, mask, ciphertext)
    return torch.where(leading(cipher, mask), found, corrected(cipher, mask, ciphertext, found))


def pack(bits: Tensor) -> Tensor:
    """The inverse of `encdl.ciphers.nn.plane_tensors.unpack`: uint8 (..., P, H, W) of 0 and 1 to (..., H, W)."""
    places = torch.arange(bits.shape[-3], dtype=torch.uint8, device=bits.device)[:, None, None]
    return bits.bitwise_left_shift(places).sum(-3, dtype=torch.uint8)
