"""Bijections of a ciphertext's bytes after the network.

The interleaver moves them in a public way, so that a contiguous loss is scattered; confusion moves them by the key, and
diffusion spreads them by the key.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from encdl.ciphers.postprocess.base import Identity, PostProcess
from encdl.ciphers.postprocess.confusion import Confusion, keyed_permutation
from encdl.ciphers.postprocess.diffusion import Diffusion
from encdl.ciphers.postprocess.interleave import Interleave
from encdl.keys.derivation import ImageKeys
from encdl.utils.errors import UsageError

__all__ = [
    "DEFAULT",
    "NAMES",
    "Both",
    "Confusion",
    "Diffusion",
    "Identity",
    "Interleave",
    "PostProcess",
    "create",
    "keyed_permutation",
]


class Both(PostProcess):
    """Confusion, then diffusion: after `undo`, a lost block of the ciphertext lies scattered."""

    name = "both"
    spreads = True

    def __init__(self) -> None:
        self._confusion = Confusion()
        self._diffusion = Diffusion()

    def _apply(self, ciphertext: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        return self._diffusion.apply(self._confusion.apply(ciphertext, keys), keys)

    def _undo(self, ciphertext: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        return self._confusion.undo(self._diffusion.undo(ciphertext, keys), keys)

    def _undo_lost(self, lost: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        return self._confusion.undo_lost(self._diffusion.undo_lost(lost, keys), keys)


_CLASSES: dict[str, type[PostProcess]] = {
    kind.name: kind for kind in (Interleave, Identity, Confusion, Diffusion, Both)
}

NAMES: tuple[str, ...] = tuple(_CLASSES)

DEFAULT = Interleave.name
"""The default."""


def create(name: str) -> PostProcess:
    """Make a post-processing by its name.

    Args:
        name: one of `NAMES`: "interleave", "none", "confusion", "diffusion" or "both".

    Returns:
        the post-processing; it holds no state.

    Raises:
        UsageError: the name is none of them.
    """
    if name not in _CLASSES:
        raise UsageError(f"post-processing {name!r} does not exist: use one of {', '.join(NAMES)}")
    return _CLASSES[name]()
