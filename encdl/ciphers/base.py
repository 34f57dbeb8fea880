"""The interface of ciphers: the contract that the tests run over all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from encdl.ciphers.nn import collaborative
from encdl.ciphers.nn.decryption import DecryptionNetwork, Repaired
from encdl.ciphers.nn.integer import wrap
from encdl.ciphers.nn.phases import fold_channels
from encdl.keys.planes import MAX_PLANES
from encdl.utils.errors import UsageError
from encdl.utils.registry import Registry

MAX_WIDTH, MAX_BLOCKS = 1024, 64
"""Of a network that repairs."""
GUESS_ERROR = 3.0
"""Levels by which a guess is off, about, where the pixel was not hit; chosen on validation images."""
NOISY = 0.3
"""Share of an image's pixels that are wrong above which noise made them so: hits are far fewer."""


class Cipher(nn.Module, ABC):
    """A keyed map between images and ciphertexts of the same size and depth.

    Images and ciphertexts are uint8 of shape (B, C, H, W). So are key planes, packed: bit p of a byte is plane p of
    its pixel. Volumes (B, C, D, H, W) are taken as images whose slices lie below one another, (B, C, D * H, W).
    Any height, width and channel count; every channel is enciphered by itself, so that neither the batch nor the other
    channels change its ciphertext.
    """

    name: ClassVar[str]
    """The name in settings and in containers, set by `CIPHERS.register`."""

    exact: ClassVar[bool]
    """Whether `decrypt` gives back every pixel of an intact ciphertext."""

    keyed_mask: ClassVar[bool] = False
    """Whether the mask follows from the key planes alone: then `field` looks at no ciphertext."""

    revision: ClassVar[int] = 1
    """Counts changes of the arithmetic: the same weights under another revision are another cipher."""

    planes: int
    """P, the number of key planes a pixel, 1 to 8."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values, so that weights can be stored beside them."""

    @abstractmethod
    def encryption_modules(self) -> list[nn.Module]:
        """The parts that decide a ciphertext or its exact decryption; their weights are what a weights id names."""

    # What training differentiates: images of one channel (N, 1, H, W), levels 0..255 as float32; key planes stay bytes.

    @abstractmethod
    def forward(self, image: Tensor, key_planes: Tensor) -> tuple[Tensor, Tensor]:
        """Encrypt with gradients.

        Args:
            image: (N, 1, H, W) float32 integers in 0..255.
            key_planes: (N, 1, H, W) uint8, packed.

        Returns:
            Ciphertext and mask, each (N, 1, H, W), float32 integers in 0..255; ciphertext = image + mask mod 256.
        """

    @abstractmethod
    def repair(self, ciphertext: Tensor, key_planes: Tensor, lost: Tensor) -> Repaired | Tensor:
        """The image behind a damaged ciphertext, with gradients.

        Args:
            ciphertext: (N, 1, H, W) float32 integers in 0..255.
            key_planes: (N, 1, H, W) uint8, packed.
            lost: (N, 1, H, W) float32, 1 where the ciphertext pixel is known to be lost.

        Returns:
            Logits (N, 1, H, W) float32: of the levels alone where every pixel is a guess, otherwise of the probability
            that the decrypted pixel is wrong, too, and of the levels that would replace it then.
        """

    # On images of one channel (N, 1, H, W) and planes (N, 1, H, W) in uint8, without gradients; levels in any dtype.

    def _encrypt(self, image: Tensor, key_planes: Tensor) -> Tensor:
        return self.forward(image.float(), key_planes)[0]

    @abstractmethod
    def _decrypt(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor: ...

    def _mask(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        """For `field`: the bytes of the key planes, where a cipher knows no better."""
        return self.spelled(key_planes)

    def spelled(self, key_planes: Tensor) -> Tensor:
        """The byte that the planes of a pixel spell, of the same shape: with fewer than eight planes they repeat."""
        byte = key_planes
        for filled in (1, 2, 4):  # doubling what is there, so that the planes repeat up to the eighth bit
            if self.planes * filled < 8:
                byte = byte | byte << self.planes * filled
        return byte

    # What users call: uint8 in, uint8 out, no gradients, full precision whatever surrounds the call.

    @torch.no_grad()
    def encrypt(self, image: Tensor, key_planes: Tensor) -> Tensor:
        """Encrypt (B, C, H, W) uint8 under key planes of that shape; gives (B, C, H, W) uint8.

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
        """The mask that lies on each pixel, uint8 of the ciphertext's shape; no pixel of the image is formed."""
        return self._run(self._mask, ciphertext, key_planes)

    @torch.no_grad()
    def restore(self, ciphertext: Tensor, key_planes: Tensor, lost: Tensor | None = None) -> Tensor:
        """The best guess at the image behind a damaged ciphertext.

        Args:
            ciphertext: (B, C, H, W) uint8.
            key_planes: (B, C, H, W) uint8.
            lost: (B, C, H, W) bool, true where a ciphertext pixel is known to be lost; `None`: nothing is known.

        Returns:
            (B, C, H, W) uint8. Pixels that are neither lost nor `worth_guessing` are decrypted, not guessed.

        Raises:
            UsageError: A shape or dtype does not fit.
        """
        self._check(ciphertext, key_planes)
        known = torch.zeros_like(ciphertext, dtype=torch.bool) if lost is None else lost
        if known.dtype != torch.bool:
            raise UsageError(f"lost must be bool, got {known.dtype}")
        if known.shape != ciphertext.shape:
            raise UsageError(
                f"lost must have the ciphertext's shape {tuple(ciphertext.shape)}, got {tuple(known.shape)}"
            )
        flat = fold_channels(known.flatten(2, -2)).unsqueeze(1)

        return self._run(lambda c, k: self._restored(c, k, flat), ciphertext, key_planes)

    def _restored(self, ciphertext: Tensor, key_planes: Tensor, lost: Tensor) -> Tensor:
        """`restore` on images of one channel; all (N, 1, H, W), `lost` bool."""
        found = self.repair(ciphertext.float(), key_planes, lost.float())
        if isinstance(found, Tensor):
            return _levels(found)
        decrypted = self._decrypt(ciphertext, key_planes).float()
        return _guessed_or_kept(found, decrypted, lost)[0]

    def _run(self, function: Any, image: Tensor, key_planes: Tensor) -> Tensor:
        self._check(image, key_planes)
        with torch.autocast(image.device.type, enabled=False):
            flat = (fold_channels(each.flatten(2, -2)).unsqueeze(1) for each in (image, key_planes))
            result: Tensor = function(*flat)
        return result.view(image.shape).to(torch.uint8)

    def _check(self, image: Tensor, key_planes: Tensor) -> None:
        if image.dtype != torch.uint8 or key_planes.dtype != torch.uint8:
            raise UsageError(f"images and key planes must be uint8, got {image.dtype} and {key_planes.dtype}")
        if image.ndim not in {4, 5} or 0 in image.shape:
            raise UsageError(
                f"an image batch must be (B, C, H, W) or (B, C, D, H, W) and not empty, got {tuple(image.shape)}"
            )
        if key_planes.shape != image.shape:
            raise UsageError(
                f"key planes, packed, must be {tuple(image.shape)} as the image is, got {tuple(key_planes.shape)}"
            )
        if image.device != key_planes.device:
            raise UsageError(f"key planes are on {key_planes.device}: bring them to the image, on {image.device}")
        if self.planes < 8 and int(key_planes.max()) >> self.planes:
            raise UsageError(f"key planes must hold {self.planes} bits a pixel, got the byte {int(key_planes.max())}")


CIPHERS: Registry[type[Cipher]] = Registry("cipher", "encdl.ciphers", Cipher, named=True)


class AdditiveCipher(Cipher):
    """A cipher whose ciphertext is image plus mask, modulo 256, repaired by a `DecryptionNetwork` behind the mask."""

    exact: ClassVar[bool] = True

    decryption: DecryptionNetwork

    def repair(self, ciphertext: Tensor, key_planes: Tensor, lost: Tensor) -> Repaired:
        """Take the mask off, and have the decryption network look at the rest; see `Cipher.repair`."""
        decrypted = wrap(ciphertext - self._mask_levels(ciphertext, key_planes))
        found: Repaired = self.decryption(decrypted, lost)
        return found

    def _restored(self, ciphertext: Tensor, key_planes: Tensor, lost: Tensor) -> Tensor:
        decrypted = self._decrypt(ciphertext, key_planes).float()
        return self._image_of(self.decryption.averaged(decrypted, lost), decrypted, lost)

    def _image_of(self, found: Repaired, decrypted: Tensor, lost: Tensor) -> Tensor:
        """The image that the network's answer gives."""
        return _guessed_or_kept(found, decrypted, lost)[0]

    @abstractmethod
    def _mask_levels(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        """The mask as float32 levels, with gradients where it has any."""

    def _mask(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        return self._mask_levels(ciphertext.float(), key_planes).to(torch.uint8)

    def _decrypt(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        return ciphertext - self._mask(ciphertext, key_planes)  # uint8 wraps at 256 by itself


class KeyedMaskCipher(AdditiveCipher):
    """An additive cipher whose mask follows from the key planes alone: subclasses say which in `key_mask`.

    Args:
        planes: P, key planes a pixel, 1..8. Below 8 the mask has fewer than 256 values a pixel and shows the image: for
            research and audits; no file is encrypted so.
        width: Channels of the decryption network, a multiple of 4, up to 1024.
        blocks: Its dilated blocks, up to 64.
    """

    keyed_mask: ClassVar[bool] = True

    def __init__(self, planes: int = 8, width: int = 64, blocks: int = 10) -> None:
        super().__init__()
        check_setting("planes", planes, 1, MAX_PLANES)
        self.planes = planes
        self._config = {"planes": planes, "width": width, "blocks": blocks}
        self.decryption = decryption_network(width, blocks)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._config)

    def _image_of(self, found: Repaired, decrypted: Tensor, lost: Tensor) -> Tensor:
        """The same; in noisy images, which are as noisy as the ciphertext was, similar blocks are filtered together."""
        result, noisy = _guessed_or_kept(found, decrypted, lost)
        if noisy.any():
            guide = 255.0 * found.level[noisy].sigmoid()
            together = collaborative.filtered(decrypted[noisy], guide, lost[noisy])
            result[noisy] = together.clamp(0.0, 255.0).round()
        return result

    @abstractmethod
    def key_mask(self, key_planes: Tensor) -> Tensor:
        """The mask under key planes, both (N, 1, H, W) uint8."""

    def forward(self, image: Tensor, key_planes: Tensor) -> tuple[Tensor, Tensor]:
        """Add the mask; see `Cipher.forward`."""
        mask = self._mask_levels(image, key_planes)
        return wrap(image + mask), mask

    def _encrypt(self, image: Tensor, key_planes: Tensor) -> Tensor:
        return image + self.key_mask(key_planes)

    def _mask(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        return self.key_mask(key_planes)

    @torch.no_grad()
    def _mask_levels(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        return self.key_mask(key_planes).float()


def decryption_network(width: int, blocks: int) -> DecryptionNetwork:
    """The network that repairs, if settings that may come from a file are in their range.

    Raises:
        ValueError: They are not.
    """
    check_setting("width", width, 4, MAX_WIDTH)
    check_setting("blocks", blocks, 0, MAX_BLOCKS)
    return DecryptionNetwork(width, blocks)


def _levels(logits: Tensor) -> Tensor:
    """Whole levels 0..255, float32."""
    return (logits.sigmoid() * 255.0).round()


def _guessed_or_kept(found: Repaired, decrypted: Tensor, lost: Tensor) -> tuple[Tensor, Tensor]:
    """Decrypted levels, with a guess where they are lost or `worth_guessing`; and which images (N,) are noisy.

    An image is either noisy, or a few of its pixels were hit. In the latter case whatever lies as near to its guess as
    guesses are right was not hit: a network in doubt about the image moves such pixels by a level or two.
    """
    guessed = _levels(found.level)
    distance = guessed - decrypted
    worth = worth_guessing(found.hit, distance)
    noisy = worth.float().mean((1, 2, 3), keepdim=True) > NOISY
    worth &= noisy | (distance.abs() > GUESS_ERROR)
    return torch.where(lost | worth, guessed, decrypted), noisy.flatten()


def worth_guessing(hits: Tensor, distance: Tensor) -> Tensor:
    """Whether to put the network's guess in the place of a decrypted pixel.

    It is where the pixel is more likely hit than not, and where guessing costs less on average: with the probability p
    that the pixel was hit, the squared distance between guess and pixel is lost p times if the pixel is kept, and the
    guess's own squared error, of `GUESS_ERROR` levels, 1 - p times if it is not.

    Args:
        hits: Logits of p.
        distance: Guess less decrypted level, of one shape with `hits`.

    Returns:
        bool of that shape.
    """
    odds = 2.0 * (distance.abs() / GUESS_ERROR).clamp(min=1.0).log()
    return hits + odds > 0


def check_setting(name: str, value: int, low: int, high: int) -> None:
    """Refuse a constructor's argument that is no whole number from `low` to `high`: settings come from files.

    Raises:
        ValueError: It is none.
    """
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value!r}")
