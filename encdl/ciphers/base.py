"""What every cipher does: the contract that the tests run over all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from encdl.errors import UsageError
from encdl.nn.phases import fold_channels


class Cipher(nn.Module, ABC):
    """A keyed map between pictures and ciphertexts of the same size and depth.

    Pictures and ciphertexts are uint8 of shape (B, C, H, W); key planes are uint8 in {0, 1} of shape
    (B, C, P, H, W), each channel with its own. Any height, width and channel count; every picture is enciphered by
    itself, so that neither the batch nor the other channels change its ciphertext.
    """

    name: ClassVar[str]
    """The name in settings and in containers."""

    exact: ClassVar[bool]
    """Whether `decrypt` gives back every pixel of an intact ciphertext."""

    keyed_mask: ClassVar[bool] = False
    """Whether the mask follows from the key alone."""

    revision: ClassVar[int] = 1
    """Counts changes of the arithmetic: the same weights under another revision are another cipher."""

    planes: int
    """P, the number of key planes a pixel."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values, so that weights can be stored beside them."""

    @abstractmethod
    def encryption_modules(self) -> list[nn.Module]:
        """The parts that decide a ciphertext or its exact decryption; their weights are what a weights id names."""

    # What training differentiates: single-channel pictures (N, 1, H, W), levels 0..255 as float32.

    @abstractmethod
    def forward(self, image: Tensor, key_planes: Tensor) -> tuple[Tensor, Tensor]:
        """Encrypt with gradients.

        Args:
            image: (N, 1, H, W) float32 integers in 0..255.
            key_planes: (N, P, H, W) float32 in {0, 1}.

        Returns:
            Ciphertext and mask, each (N, 1, H, W), float32 integers in 0..255; ciphertext = image + mask mod 256.
        """

    @abstractmethod
    def logits(self, ciphertext: Tensor, key_planes: Tensor, lost: Tensor) -> Tensor:
        """The picture behind a possibly damaged ciphertext, as logits of a binary image, with gradients.

        Args:
            ciphertext: (N, 1, H, W) float32 integers in 0..255.
            key_planes: (N, P, H, W) float32 in {0, 1}.
            lost: (N, 1, H, W) float32, 1 where the ciphertext pixel is known to be lost.

        Returns:
            (N, 1, H, W) float32; 255 times their sigmoid is the picture.
        """

    # What users call, on single-channel pictures (N, 1, H, W) and planes (N, P, H, W) in uint8, without gradients; the
    # result holds levels 0..255 in any dtype.

    def _encrypt(self, image: Tensor, key_planes: Tensor) -> Tensor:
        return self.forward(image.float(), key_planes.float())[0]

    @abstractmethod
    def _decrypt(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor: ...

    def _mask(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        """For `field`: the bytes of the key planes, where a cipher knows no better."""
        return plane_bytes(key_planes)

    # What users call: uint8 in, uint8 out, no gradients, full precision whatever surrounds the call.

    @torch.no_grad()
    def encrypt(self, image: Tensor, key_planes: Tensor) -> Tensor:
        """Encrypt (B, C, H, W) uint8 under (B, C, P, H, W) key planes; gives (B, C, H, W) uint8.

        Raises:
            UsageError: A shape, dtype or device does not fit.
        """
        return self._run(self._encrypt, image, key_planes)

    @torch.no_grad()
    def decrypt(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        """Decrypt an intact ciphertext; shapes and errors as in `encrypt`. Bit-exact where `exact` is true."""
        return self._run(self._decrypt, ciphertext, key_planes)

    @torch.no_grad()
    def field(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        """What a ciphertext reader gates by: the mask that lies on each pixel, uint8 of the ciphertext's shape.

        It follows from the ciphertext and the key planes alone; no pixel of the picture is formed on the way.
        """
        return self._run(self._mask, ciphertext, key_planes)

    @torch.no_grad()
    def restore(self, ciphertext: Tensor, key_planes: Tensor, lost: Tensor | None = None) -> Tensor:
        """The best guess at the picture behind a damaged ciphertext.

        Args:
            ciphertext: (B, C, H, W) uint8.
            key_planes: (B, C, P, H, W) uint8.
            lost: (B, C, H, W) bool, true where a ciphertext pixel is known to be lost; `None`: nothing is known.

        Returns:
            (B, C, H, W) uint8. Where `lost` is true somewhere in a picture, all of that picture's damage is taken to
            be known: pixels that no lost pixel reaches are decrypted, not guessed.

        Raises:
            UsageError: A shape or dtype does not fit.
        """
        known = torch.zeros_like(ciphertext, dtype=torch.bool) if lost is None else lost
        if known.dtype != torch.bool:
            raise UsageError(f"lost must be bool, got {known.dtype}")
        if known.shape != ciphertext.shape:
            raise UsageError(
                f"lost must have the ciphertext's shape {tuple(ciphertext.shape)}, got {tuple(known.shape)}"
            )
        flat = fold_channels(known).unsqueeze(1).float()

        def guess(c: Tensor, k: Tensor) -> Tensor:
            return (self.logits(c.float(), k.float(), flat).sigmoid() * 255.0).round()

        restored = self._run(guess, ciphertext, key_planes)
        if lost is None or not bool(lost.any()):
            return restored
        reached = self.reach(flat).view(ciphertext.shape)
        unannounced = ~lost.flatten(1).any(1).view(
            -1, 1, 1, 1
        )  # pictures without a known loss: all is a guess
        return torch.where(reached | unannounced, restored, self.decrypt(ciphertext, key_planes))

    def reach(self, lost: Tensor) -> Tensor:
        """Which pixels of the picture a loss can touch: (N, 1, H, W) float in {0, 1} -> bool, all by default."""
        return lost.flatten(1).amax(1).bool().view(-1, 1, 1, 1).expand_as(lost)

    def _run(self, function: Any, picture: Tensor, key_planes: Tensor) -> Tensor:
        self._check(picture, key_planes)
        with torch.autocast(picture.device.type, enabled=False):
            result: Tensor = function(fold_channels(picture).unsqueeze(1), fold_channels(key_planes))
        return result.view(picture.shape).to(torch.uint8)

    def _check(self, picture: Tensor, key_planes: Tensor) -> None:
        if picture.dtype != torch.uint8 or key_planes.dtype != torch.uint8:
            raise UsageError(
                f"pictures and key planes must be uint8, got {picture.dtype} and {key_planes.dtype}"
            )
        if picture.ndim != 4 or 0 in picture.shape:
            raise UsageError(
                f"a picture batch must be (B, C, H, W) and not empty, got {tuple(picture.shape)}"
            )
        expected = (*picture.shape[:2], self.planes, *picture.shape[2:])
        if tuple(key_planes.shape) != expected:
            raise UsageError(f"key planes must be {expected} for this picture, got {tuple(key_planes.shape)}")
        if picture.device != key_planes.device:
            raise UsageError(
                f"key planes are on {key_planes.device}: bring them to the picture, on {picture.device}"
            )
        if int(key_planes.max()) > 1:
            raise UsageError(f"key planes must hold 0 and 1 only, got a {int(key_planes.max())}")


def check_setting(name: str, value: int, low: int, high: int) -> None:
    """Refuse a constructor's argument that is no whole number from `low` to `high`: settings come from files.

    Raises:
        ValueError: It is none.
    """
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")


def plane_bytes(key_planes: Tensor) -> Tensor:
    """The bytes that the planes of a pixel spell: (N, P, H, W) in {0, 1} -> (N, 1, H, W) in 0..255, of its dtype.

    Plane p is bit p. With fewer than eight planes they repeat; planes beyond the eighth spell nothing here.
    """
    count = key_planes.shape[1]
    spelled = torch.zeros_like(key_planes[:, :1])
    for plane in range(min(count, 8)):
        worth = sum(1 << bit for bit in range(plane, 8, count))
        spelled.add_(key_planes[:, plane : plane + 1], alpha=worth)
    return spelled
