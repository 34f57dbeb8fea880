"""The interface of post-processings: an exact bijection of the ciphertext's bytes after the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from encdl.keys.derivation import ImageKeys


class PostProcess(ABC):
    """A bijection of a batch of ciphertexts, the same on every device and for every batch size.

    Attributes:
        name: as in `encdl.ciphers.names.POSTPROCESS`.
        keyed: whether undoing it takes a secret. If not, it hides nothing: whoever has the file undoes it.
        spreads: whether undoing it carries one damaged byte to others. If not, it moves bytes and does no more.
    """

    name: ClassVar[str]
    keyed: ClassVar[bool] = True
    spreads: ClassVar[bool] = False

    def apply(self, ciphertext: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        """Post-process the network's output.

        Args:
            ciphertext: uint8 (B, C, H, W), any sizes; not changed.
            keys: the sub-keys of each of the B images.

        Returns:
            uint8 (B, C, H, W) on the same device; may be `ciphertext` itself.

        Raises:
            TypeError: the ciphertext is not uint8.
            ValueError: the ciphertext is not (B, C, H, W), or there are not B keys.
        """
        _check(ciphertext, keys, torch.uint8)
        return self._apply(ciphertext, keys) if ciphertext.numel() else ciphertext

    def undo(self, ciphertext: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        """Invert `apply` exactly, with the same arguments, result and errors."""
        _check(ciphertext, keys, torch.uint8)
        return self._undo(ciphertext, keys) if ciphertext.numel() else ciphertext

    def undo_lost(self, lost: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        """Tell which bytes are damaged after `undo` when some bytes of the ciphertext were lost before it.

        Args:
            lost: bool (B, C, H, W), True where a byte of the ciphertext is lost; not changed.
            keys: the sub-keys of each of the B images.

        Returns:
            bool (B, C, H, W) on the same device: False where `undo` still gives the right byte, whatever
            the lost bytes were filled with; may be `lost` itself.

        Raises:
            TypeError: `lost` is not bool.
            ValueError: `lost` is not (B, C, H, W), or there are not B keys.
        """
        _check(lost, keys, torch.bool)
        return self._undo_lost(lost, keys) if lost.numel() else lost

    @abstractmethod
    def _apply(self, ciphertext: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        """`apply` on checked arguments, at least one byte."""

    @abstractmethod
    def _undo(self, ciphertext: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        """`undo` on checked arguments, at least one byte."""

    @abstractmethod
    def _undo_lost(self, lost: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        """`undo_lost` on checked arguments, at least one byte."""


class Identity(PostProcess):
    """No post-processing: the network's output is the ciphertext."""

    name = "none"
    keyed = False

    def _apply(self, ciphertext: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        return ciphertext

    def _undo(self, ciphertext: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        return ciphertext

    def _undo_lost(self, lost: Tensor, keys: Sequence[ImageKeys]) -> Tensor:
        return lost


def _check(images: Tensor, keys: Sequence[ImageKeys], dtype: torch.dtype) -> None:
    if images.dtype != dtype:
        raise TypeError(f"expected a tensor of {dtype}, got {images.dtype}")
    if images.ndim != 4:
        raise ValueError(f"expected a tensor (B, C, H, W), got {tuple(images.shape)}")
    if len(keys) != len(images):
        raise ValueError(f"expected the keys of {len(images)} images, got {len(keys)}")
