"""The views of an image that a reader is trained and compared on: one class a mode of training.

A view gives the main row, on which the reader is trained and judged, and further rows for which the same reader is only
judged. Row names are those of the result tables.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from encdl.ciphers.base import Cipher
from encdl.data.base import DataSpec
from encdl.readers import FunctionalStem, KeyedStem, KeylessStem, PlainStem, PositionalStem, Reader, Stem, StridedStem
from encdl.readers.functional import Form
from encdl.training.tasks.random_damage import RandomDamage
from encdl.utils.errors import UsageError

HALF_DAMAGED = RandomDamage(intact=0.5)


def _volumes(spec: DataSpec) -> dict[str, int]:
    """The further argument of a stem for volumes."""
    return {"dimensions": 3} if spec.depth else {}


@dataclass(frozen=True)
class Sight:
    """The input of a reader; of volumes with a further axis, the slices: (B, C, D, H, W).

    Attributes:
        image: uint8 (B, C, H, W), or the same levels as float32 where gradients are wanted.
        mask: The mask of each pixel, of the same shape and type; None for readers without a key.
    """

    picture: Tensor
    mask: Tensor | None = None


class Keys(Protocol):
    """Key planes for one batch, packed: uint8 (B, C, H, W)."""

    def fresh(self, purpose: str) -> Tensor:
        """Of another key for each image of each batch."""
        ...

    def fixed(self, purpose: str) -> Tensor:
        """Of one key and nonce for all images of the data set."""
        ...

    def generator(self, purpose: str) -> Generator:
        """Random numbers for damage, drawn anew for each batch."""
        ...


class Harm(Protocol):
    """A damage with its random numbers: uint8 (B, C, H, W) to the damaged image and the known-lost pixels."""

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Damage a copy."""
        ...


class View(ABC):
    """A mode of training.

    Args:
        stem: Makes the stem for a number of image channels.
    """

    row: ClassVar[str]
    """Name of the main row."""

    def __init__(self, stem: Callable[..., Stem]) -> None:
        self.stem = stem

    def stem_for(self, spec: DataSpec) -> Stem:
        """The stem for the images of a data set."""
        return self.stem(spec.channels, **_volumes(spec))

    @abstractmethod
    def train(self, cipher: Cipher, image: Tensor, keys: Keys) -> Sight:
        """The view that the reader is trained on."""

    def rows(self, cipher: Cipher, image: Tensor, keys: Keys) -> dict[str, Sight]:
        """The views of its evaluation, by name of the row; the main row first."""
        return {self.row: self.train(cipher, image, keys)}

    def damaged(self, cipher: Cipher, image: Tensor, keys: Keys, harm: Harm) -> dict[str, Sight]:
        """The views of its evaluation after damage, by name of the row; none by default."""
        return {}

    def penalty(self, reader: Reader, sight: Sight) -> Tensor:
        """A term that training adds to the task's loss; none by default."""
        return sight.picture.new_zeros((), dtype=torch.float32)

    def shown(self, reader: Reader, sight: Sight) -> Tensor:
        """The image for panels: uint8 (B, C, H, W)."""
        return sight.picture


class Ciphertext(View):
    """The ciphertext under a fresh key for every image, with the mask that follows from it and the key.

    The row `wrong_key` gives the same reader another key.
    """

    row: ClassVar[str] = "ciphertext"

    def __init__(self, stem: Callable[[int], Stem] = KeyedStem) -> None:
        super().__init__(stem)

    def train(self, cipher: Cipher, image: Tensor, keys: Keys) -> Sight:
        """Ciphertext and mask."""
        planes = keys.fresh("key")
        ciphertext = cipher.encrypt(image, planes)
        # ciphertext = image + mask mod 256, so training need not run the network twice; the rows below do.
        return Sight(ciphertext, ciphertext - image if cipher.exact else cipher.field(ciphertext, planes))

    def rows(self, cipher: Cipher, image: Tensor, keys: Keys) -> dict[str, Sight]:
        """As a user computes them: from the ciphertext and a key alone."""
        planes = keys.fresh("key")
        ciphertext = cipher.encrypt(image, planes)
        return {
            self.row: Sight(ciphertext, cipher.field(ciphertext, planes)),
            "wrong_key": Sight(ciphertext, cipher.field(ciphertext, keys.fresh("wrong key"))),
        }

    def damaged(self, cipher: Cipher, image: Tensor, keys: Keys, harm: Harm) -> dict[str, Sight]:
        """The damaged ciphertext, and the mask that follows from it."""
        planes = keys.fresh("key")
        ciphertext, _ = harm(cipher.encrypt(image, planes))
        return {self.row: Sight(ciphertext, cipher.field(ciphertext, planes))}


class HardenedCiphertext(Ciphertext):
    """As `Ciphertext`, trained on damaged ciphertexts too, so that it also reads what suffered on its way.

    Args:
        stem: Makes the stem for a number of image channels.
        damage: What training does to ciphertexts; half of them stay intact by default.
    """

    row: ClassVar[str] = "hardened"

    def __init__(self, stem: Callable[[int], Stem] = KeyedStem, damage: RandomDamage = HALF_DAMAGED) -> None:
        super().__init__(stem)
        self.damage = damage

    def train(self, cipher: Cipher, image: Tensor, keys: Keys) -> Sight:
        """Damaged ciphertext, and the mask that follows from it."""
        planes = keys.fresh("key")
        ciphertext, _ = self.damage(cipher.encrypt(image, planes), keys.generator("damage"))
        return Sight(ciphertext, cipher.field(ciphertext, planes))


class Plaintext(View):
    """The image itself; the row `decrypt_then_infer` encrypts and decrypts it first."""

    row: ClassVar[str] = "plaintext"

    def __init__(self, stem: Callable[[int], Stem] = PlainStem) -> None:
        super().__init__(stem)

    def train(self, cipher: Cipher, image: Tensor, keys: Keys) -> Sight:
        """The image."""
        return Sight(image)

    def rows(self, cipher: Cipher, image: Tensor, keys: Keys) -> dict[str, Sight]:
        """Plaintext, and what decryption gives back."""
        planes = keys.fresh("key")
        decrypted = cipher.decrypt(cipher.encrypt(image, planes), planes)
        return {self.row: Sight(image), "decrypt_then_infer": Sight(decrypted)}

    def damaged(self, cipher: Cipher, image: Tensor, keys: Keys, harm: Harm) -> dict[str, Sight]:
        """The damaged image; and of a damaged ciphertext, what decryption and what restoration give."""
        planes = keys.fresh("key")
        ciphertext, lost = harm(cipher.encrypt(image, planes))
        return {
            self.row: Sight(harm(image)[0]),
            "decrypt_then_infer": Sight(cipher.decrypt(ciphertext, planes)),
            "restore_then_infer": Sight(cipher.restore(ciphertext, planes, lost)),
        }


class HardenedPlaintext(Plaintext):
    """As `Plaintext`, trained on images damaged alike: what `HardenedCiphertext` is compared with.

    Args:
        stem: Makes the stem for a number of image channels.
        damage: What training does to images; half of them stay intact by default.
    """

    row: ClassVar[str] = "hardened_plaintext"

    def __init__(self, stem: Callable[[int], Stem] = PlainStem, damage: RandomDamage = HALF_DAMAGED) -> None:
        super().__init__(stem)
        self.damage = damage

    def train(self, cipher: Cipher, image: Tensor, keys: Keys) -> Sight:
        """Damaged image."""
        return Sight(self.damage(image, keys.generator("damage"))[0])

    def rows(self, cipher: Cipher, image: Tensor, keys: Keys) -> dict[str, Sight]:
        """The intact image."""
        return {self.row: Sight(image)}

    def damaged(self, cipher: Cipher, image: Tensor, keys: Keys, harm: Harm) -> dict[str, Sight]:
        """The damaged image."""
        return {self.row: Sight(harm(image)[0])}


class Keyless(View):
    """The ciphertext under a fresh key for every image, and no key: what leaks without one."""

    row: ClassVar[str] = "keyless"

    def __init__(self, stem: Callable[[int], Stem] = KeylessStem) -> None:
        super().__init__(stem)

    def train(self, cipher: Cipher, image: Tensor, keys: Keys) -> Sight:
        """The ciphertext alone."""
        return Sight(cipher.encrypt(image, keys.fresh("key")))


class FixedKey(View):
    """The ciphertext under one key and nonce for the whole data set, which the reader never sees.

    The host holds no key, and what it reads is not protected: under a reused nonce the difference of two ciphertexts
    shows the difference of the images, and the stem finds much of the mask from the data set alone. For comparison,
    never for use. The row `wrong_key` encrypts under another key.

    Args:
        stem: Makes the stem for a number of image channels and their size.
    """

    row: ClassVar[str] = "fixed_key"

    def __init__(self, stem: Callable[[int, tuple[int, int]], Stem] = PositionalStem) -> None:
        super().__init__(stem)

    def stem_for(self, spec: DataSpec) -> Stem:
        """The stem for images of this size."""
        return self.stem(spec.channels, spec.shape, **_volumes(spec))

    def train(self, cipher: Cipher, image: Tensor, keys: Keys) -> Sight:
        """The ciphertext under the one key."""
        return Sight(cipher.encrypt(image, keys.fixed("key")))

    def rows(self, cipher: Cipher, image: Tensor, keys: Keys) -> dict[str, Sight]:
        """Under the one key, and under another."""
        other = Sight(cipher.encrypt(image, keys.fixed("wrong key")))
        return super().rows(cipher, image, keys) | {"wrong_key": other}


class Functional(View):
    """The view of a host with a functional key and without the key: W of the image, and nothing else.

    Nothing is encrypted: the difference of ciphertext and mask, each convolved, is W of the image exactly
    (`encdl.readers.functional`).

    Args:
        outputs: Numbers that W gives at each place of its grid.
        kernel: Side of W's windows in pixels; the longer side of the image by 0.
        stride: From window to window.
        form: What W is taken of: the container's reading layer, or the ciphertext itself.
        adversary: Weight of the decoder that W is trained against.
        noise: Standard deviation, in levels, of what the key server adds to the pixels, one draw a file.
        region: The part of the reading layer that W sees, [first, end] of each axis; all of it by [].
        size: Height and width of the reading layer; the data set's own by 0. Classifiers of flat images alone may have
            another.
        width: Channels of the stem's features.
        expand: How many times as high and wide as the grid the features are; the stride by 0.
    """

    row: ClassVar[str] = "functional"

    def __init__(
        self,
        outputs: int = 4,
        kernel: int = 8,
        stride: int = 8,
        form: Form = "layer",
        adversary: float = 0.1,
        noise: float = 0.0,
        size: int = 0,
        width: int = 16,
        expand: int = 0,
        region: Sequence[Sequence[int]] = (),
    ) -> None:
        super().__init__(FunctionalStem)
        self.settings: dict[str, Any] = {
            "outputs": outputs, "kernel": kernel, "stride": stride, "form": form, "width": width, "expand": expand,
            "adversary": adversary, "noise": noise, "region": region,
        }  # fmt: skip
        self.size = size

    def stem_for(self, spec: DataSpec) -> Stem:
        """The stem for the reading layer of these images."""
        if self.size and spec.depth:
            raise UsageError(
                "view Functional: size is for flat images; a data set of volumes says its own (data setting size)"
            )
        size = (self.size, self.size) if self.size else spec.shape
        return self.stem(spec.channels, size, **self.settings, **_volumes(spec))

    def train(self, cipher: Cipher, image: Tensor, keys: Keys) -> Sight:
        """The levels of the reading layer: W of them, with the key server's noise, is all that the reader takes."""
        levels = image.float()
        if self.size:
            levels = F.interpolate(levels, (self.size, self.size), mode="area").round()
        return Sight(levels)

    def penalty(self, reader: Reader, sight: Sight) -> Tensor:
        """The adversary's: see `FunctionalStem.penalty`."""
        assert isinstance(reader.stem, FunctionalStem)
        return reader.stem.penalty(sight.picture)

    def shown(self, reader: Reader, sight: Sight) -> Tensor:
        """The adversary's reconstruction, or black without an adversary."""
        assert isinstance(reader.stem, FunctionalStem)
        return reader.stem.rebuilt(sight.picture)


class TwoParty(View):
    """The image, for a reader that host and key server compute together on shares (`encdl.readers.two_party`)."""

    row: ClassVar[str] = "two_party"

    def __init__(self, stem: Callable[[int], Stem] = StridedStem) -> None:
        super().__init__(stem)

    def train(self, cipher: Cipher, image: Tensor, keys: Keys) -> Sight:
        """The image."""
        return Sight(image)
