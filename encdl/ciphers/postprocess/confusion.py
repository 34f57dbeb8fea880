"""Confusion: a keyed permutation of all positions of an image.

The permutation is computed, not sorted: a Feistel network on the position's two digits costs O(n), and every
position goes through it independently. Damage stays local: one lost byte of the ciphertext is one lost byte
after `undo`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from encdl.ciphers.postprocess.base import PostProcess
from encdl.keys.derivation import ImageKeys
from encdl.keys.sequences import integer_sequence

ROUNDS = 8
_MOST_POSITIONS = 2**30  # positions, and places in the tables, fit int32


def keyed_permutation(secrets: Sequence[bytes], count: int, device: torch.device | str = "cpu") -> Tensor:
    """Permute the numbers 0..count-1, differently for every secret.

    A balanced Feistel network with modular addition on the digits of `position = left * right_base + right`,
    where both bases are near sqrt(count). Its round functions are tables of ChaCha20's output, which are
    affordable as they only have sqrt(count) entries. A position that leaves the range goes through the network
    again (cycle walking).

    Sources: M. Luby and C. Rackoff, SIAM J. Comput. 17 (1988) 373; mixed bases and cycle walking: J. Black
    and P. Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002.

    Args:
        secrets: B secrets of 32 bytes.
        count: size of the range, 1 to 2**30.
        device: where the result goes and is computed.

    Returns:
        int64 (B, count), each row a permutation of 0..count-1.

    Raises:
        ValueError: count is out of range.
    """
    if not 1 <= count <= _MOST_POSITIONS:
        raise ValueError(f"cannot permute {count} positions: give 1 to {_MOST_POSITIONS}")
    positions = torch.arange(count, dtype=torch.int32, device=device)
    rows = [_permute(secret, positions) for secret in secrets]
    return torch.stack(rows) if rows else positions.new_empty((0, count), dtype=torch.int64)


def _permute(secret: bytes, positions: Tensor) -> Tensor:
    """One row of `keyed_permutation`; an image at a time stays in the processor's cache."""
    count = len(positions)
    left_base = math.isqrt(count - 1) + 1
    right_base = -(-count // left_base)
    tables = _round_tables(secret, left_base, right_base).to(positions.device)
    result = _feistel(positions, tables, left_base, right_base)
    while True:
        outside = (result >= count).nonzero().squeeze(1)
        if not len(outside):
            return result.long()
        result[outside] = _feistel(result[outside], tables, left_base, right_base)


def _round_tables(secret: bytes, left_base: int, right_base: int) -> Tensor:
    """Round functions: what a round adds to one digit, by the other digit, which it does not reduce first.

    A digit is reduced once, at the end. Until then it grows by less than its base in each of its rounds, so each
    table is repeated as often: a round is one look-up and one addition. The modulus favours small digits by less
    than base / 2**32.

    Returns:
        int32 (ROUNDS, repeats * left_base); even rounds change the left digit, odd ones the right.
    """
    words = integer_sequence("chacha20", [secret], ROUNDS * left_base).reshape(ROUNDS, left_base)
    repeats = ROUNDS // 2 + 1
    tables = np.zeros((ROUNDS, repeats * left_base), dtype=np.int32)
    tables[0::2, : repeats * right_base] = np.tile(words[0::2, :right_base] % np.uint32(left_base), repeats)
    tables[1::2] = np.tile(words[1::2] % np.uint32(right_base), repeats)
    return torch.from_numpy(tables)


def _feistel(positions: Tensor, tables: Tensor, left_base: int, right_base: int) -> Tensor:
    """Send positions, int32 (N,) and below left_base * right_base, through all rounds."""
    left = positions // right_base
    right = positions - left * right_base
    for number, table in enumerate(tables):
        if number % 2 == 0:
            left += table.index_select(0, right)
        else:
            right += table.index_select(0, left)
    return left.remainder_(left_base).mul_(right_base).add_(right.remainder_(right_base))


class Confusion(PostProcess):
    """A keyed permutation of the C*H*W positions of each image."""

    name = "confusion"

    def _apply(self, ciphertext: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        return ciphertext.flatten(1).gather(1, _sources(ciphertext, keys)).view_as(ciphertext)

    def _undo(self, ciphertext: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        flat = ciphertext.flatten(1)
        return torch.empty_like(flat).scatter_(1, _sources(ciphertext, keys), flat).view_as(ciphertext)

    def _undo_lost(self, lost: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        return self._undo(lost, keys)


def _sources(images: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
    """Where each byte of the permuted images comes from: int64 (B, C*H*W)."""
    return keyed_permutation([key.permutation for key in keys], images[0].numel(), images.device)
