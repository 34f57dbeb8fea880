"""One cipher's figures without damage: exactness, wrong keys, statistics, differential figures, content activity."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from cryptography.hazmat.primitives.ciphers import Cipher as AESCipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from torch import Tensor
from torch.nn import functional as F

from encdl.ciphers import postprocess
from encdl.ciphers.base import Cipher
from encdl.ciphers.nn.plane_tensors import plane_tensor
from encdl.data.subset import evenly
from encdl.keys.derivation import ImageKeys
from encdl.keys.key import Key, synthetic_nonce
from encdl.keys.planes import PlaneSpec
from encdl.metrics.differential import npcr_pct, uaci_pct
from encdl.metrics.quality import content_activity, mean_psnr_db
from encdl.metrics.statistics import entropy_bits, mean_adjacent_correlation
from encdl.utils.records import summary

SIZES = ((28, 28), (31, 45), (64, 64), (97, 61), (128, 128), (224, 224), (233, 197), (256, 256), (301, 299), (512, 512))
"""Heights and widths at which exactness is tried, odd ones among them."""

ROWS = {"network": "none", "confusion": "confusion", "diffusion": "diffusion", "synthetic_nonce": "none"}
"""Rows of the statistics, and the post-processing of each; the last one takes its nonce from the image."""

REFERENCES = ("aes_256_ctr", "fixed_xor")
"""Rows of the statistics that do not depend on the cipher: what to compare with."""

Progress = Callable[[str], None]


class Evaluation:
    """Measures one cipher on given images, under keys that no training has seen.

    Args:
        cipher: In evaluation mode, on its device.
        spec: Map and expansion of the key planes.
        device: Where to compute.
        seed: Fixes keys and damage.
    """

    def __init__(self, cipher: Cipher, spec: PlaneSpec, device: str, seed: int) -> None:
        self.cipher, self.spec, self.device, self.seed = cipher, spec, device, seed
        # Test keys: reproducible, hence no secrets.
        self.key = Key(hashlib.sha256(f"encdl evaluation key {seed}".encode()).digest())
        self.wrong_key = Key(hashlib.sha256(f"encdl evaluation wrong key {seed}".encode()).digest())

    def figures(
        self, images: Sequence[Tensor], exact_images: int, statistics_images: int, progress: Progress
    ) -> dict[str, Any]:
        """All figures.

        Args:
            images: uint8 (C, H, W) each.
            exact_images: How many images, of sizes in turn from `SIZES`, exactness is tried on.
            statistics_images: How many of the images, evenly spread, the statistics and activity are over.
            progress: Told in a few words what comes next.
        """
        few = evenly(images, min(statistics_images, len(images)))
        progress(f"exactness on {exact_images} images of {len(SIZES)} sizes")
        result: dict[str, Any] = self.exactness(images, exact_images) | self.without_the_key(images)
        if not self.cipher.keyed_mask:
            result |= self.activity(few)
        progress(f"statistics of {len(few)} images")
        for row in ROWS:
            for name, value in self.statistics(few, row).items():
                result.setdefault(name, {})[row] = value
        return result

    def references(self, images: Sequence[Tensor], statistics_images: int) -> dict[str, dict[str, float]]:
        """The statistics of what every cipher is compared with."""
        few = evenly(images, min(statistics_images, len(images)))
        return {row: self.statistics(few, row) for row in REFERENCES}

    def exactness(self, images: Sequence[Tensor], count: int) -> dict[str, float]:
        """`exact_fraction`: images that come back without one wrong pixel; `exact_pixel_fraction`: pixels."""
        whole, pixels = [], []
        for index in range(count):
            size = SIZES[index % len(SIZES)]
            image = resized(images[(index // len(SIZES)) % len(images)], size).to(self.device)
            planes = self._planes(self._keys(index), image)
            same = self.cipher.decrypt(self.cipher.encrypt(image, planes), planes) == image
            whole.append(float(same.all()))
            pixels.append(float(same.float().mean()))
        return {"exact_fraction": _mean(whole), "exact_pixel_fraction": _mean(pixels)}

    def without_the_key(self, images: Sequence[Tensor]) -> dict[str, float]:
        """PSNR in dB with a wrong key, and of each image's mean level."""
        wrong_key, mean_image = [], []
        for index, image in enumerate(self._batches(images)):
            ciphertext = self.cipher.encrypt(image, self._planes(self._keys(index), image))
            wrong = self._planes(self.wrong_key.image_keys(nonce(index)), image)
            wrong_key.append(float(mean_psnr_db(self.cipher.decrypt(ciphertext, wrong), image)))
            mean = image.float().mean((2, 3), keepdim=True).round().to(torch.uint8)
            mean_image.append(float(mean_psnr_db(mean.expand_as(image), image)))
        return {"wrong_key_psnr_db": _mean(wrong_key), "mean_image_psnr_db": _mean(mean_image)}

    def statistics(self, images: Sequence[Tensor], row: str) -> dict[str, float]:
        """Entropy (bits) and adjacent correlation of ciphertexts; NPCR and UACI (%) for one changed pixel.

        The pixel is the first, the middle or the last, and changes by one level.
        """
        encrypt = {"aes_256_ctr": self._aes, "fixed_xor": self._fixed_xor}.get(row) or partial(self._encrypt, row)
        figures: dict[str, list[Tensor]] = {}
        for index, image in enumerate(self._batches(images)):
            ciphertext = encrypt(index, image)
            figures.setdefault("entropy_bits", []).append(entropy_bits(ciphertext))
            figures.setdefault("adjacent_correlation", []).append(mean_adjacent_correlation(ciphertext))
            for place in (0, image.numel() // 2, image.numel() - 1):
                changed = image.clone()
                changed.view(-1)[place] ^= 1
                other = encrypt(index, changed)
                figures.setdefault("npcr_pct", []).append(npcr_pct(ciphertext, other))
                figures.setdefault("uaci_pct", []).append(uaci_pct(ciphertext, other))
        return {name: float(torch.cat(values).mean()) for name, values in figures.items()}

    def activity(self, images: Sequence[Tensor]) -> dict[str, float]:
        """Content activity under one key, by which images are compared.

        `content_activity`: the mean over all pairs of different images of the first one's size;
        `content_activity_neighbour`: over pairs that follow one another in the data set, which may be
        near-duplicates that share most of their content; `content_activity_unrelated`: over pairs of which one is
        turned by half a turn.
        """
        alike = [image for image in images if image.shape == images[0].shape]
        planes = self._planes(self._keys(0), alike[0].unsqueeze(0))
        upright = [self._mask(image, planes) for image in alike]
        turned = [self._mask(image.flip(-1, -2), planes) for image in alike]
        count = range(len(alike))
        pairs = {
            "content_activity": list(itertools.combinations(upright, 2)),
            "content_activity_neighbour": [(upright[i], upright[i + 1]) for i in count[:-1]],
            "content_activity_unrelated": [(upright[i], turned[i - 1]) for i in count],
        }
        fallback = pairs["content_activity_unrelated"]  # one image alone: compared with itself, turned
        return {name: _mean([float(content_activity(*pair)) for pair in of or fallback]) for name, of in pairs.items()}

    def _mask(self, image: Tensor, planes: Tensor) -> Tensor:
        batch = image.unsqueeze(0).to(self.device)
        return self.cipher.encrypt(batch, planes) - batch

    def _batches(self, images: Sequence[Tensor]) -> Iterator[Tensor]:
        for image in images:
            yield image.unsqueeze(0).to(self.device)

    def _encrypt(self, row: str, index: int, image: Tensor) -> Tensor:
        keys = self._row_keys(row, index, image)
        return postprocess.create(ROWS[row]).apply(self.cipher.encrypt(image, self._planes(keys, image)), [keys])

    def _aes(self, index: int, image: Tensor) -> Tensor:
        """The reference: AES-256 in counter mode, key and nonce as for the cipher."""
        keys = self._keys(index)
        return _xor_stream(image, AESCipher(AES(keys.planes), CTR(keys.nonce)))

    def _fixed_xor(self, index: int, image: Tensor) -> Tensor:
        """The weak reference: one keystream for every image."""
        return self._aes(0, image)

    def _keys(self, index: int) -> ImageKeys:
        return self.key.image_keys(nonce(index))

    def _row_keys(self, row: str, index: int, image: Tensor) -> ImageKeys:
        """Same nonce for image and changed image, except where the nonce comes from the image."""
        if row != "synthetic_nonce":
            return self._keys(index)
        content = image.cpu().contiguous().numpy().tobytes()
        return self.key.image_keys(synthetic_nonce(self.key, content, str(tuple(image.shape)).encode()))

    def _planes(self, keys: ImageKeys, image: Tensor) -> Tensor:
        return plane_tensor([keys.planes], self.spec, image.shape[1:], self.device)


def per_seed(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds, nested as the figures are, and beside them `per_seed` with mean, std and values."""
    flat = [_flat(one) for one in figures]
    seeds = {name: summary([one[name] for one in flat]) for name in flat[0]}
    return _nested({name: entry["mean"] for name, entry in seeds.items()}) | {"per_seed": _nested(seeds)}


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (C, H, W) to uint8 (1, C, *size), bilinear with antialiasing."""
    if tuple(image.shape[-2:]) == size:
        return image.unsqueeze(0)
    smooth = F.interpolate(image.unsqueeze(0).float(), size, mode="bilinear", antialias=True)
    return smooth.round().clamp(0, 255).to(torch.uint8)


def _xor_stream(image: Tensor, cipher: AESCipher[CTR]) -> Tensor:
    plain = image.cpu().contiguous().numpy()
    secret = cipher.encryptor().update(plain.tobytes())
    return torch.frombuffer(bytearray(secret), dtype=torch.uint8).view(image.shape).to(image.device)


def nonce(index: int) -> bytes:
    """The public nonce of an image by its number: reproducible, and with a test key no risk."""
    return hashlib.sha256(f"encdl evaluation nonce {index}".encode()).digest()[:16]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in nested.items():
        flat |= _flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split("/")
        place = nested
        for step in path:
            place = place.setdefault(step, {})
        place[last] = value
    return nested
