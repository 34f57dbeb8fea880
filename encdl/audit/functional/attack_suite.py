"""The attacks on each setting's first reader, from its kept file, beside the decoders; and damage of the ciphertext.

Every attack has a reference that it breaks, in the same record: the prior beats the interpolation of a thumbnail, the
plaintext is re-identified, attributes are read from pixels.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encdl.audit.functional import attribute_inference, decoders, inverse_problems
from encdl.audit.functional.device_dataset import SPLITS, Resident
from encdl.audit.functional.plan import Plan
from encdl.audit.functional.training import Budget, judge
from encdl.ciphers.reading_layer import add_mask, reading_mask, remove_mask
from encdl.data.base import Split
from encdl.data.npz import NpzImages
from encdl.keys.functional_map import FunctionalMap
from encdl.keys.key import Key
from encdl.metrics.perceptual import perceptual_distance
from encdl.readers import FunctionalStem, Reader

DRAWN, SOLVED = 64, 4
"""Test images of the prior and of linear programming, which take seconds each."""
LARGEST = 28 * 28
"""Pixels of an image that linear programming is tried on, at the most."""
BLOCK = 4
"""Side of a block of the thumbnail that the prior has to beat."""
HIT = 0.01
TURNS = 15
"""Of each of two readers that are timed."""


class AttackSuite:
    """Attacks on the readers of one data set; those that need training are trained once.

    Args:
        plan: The study.
        source: Its data set.
        data: The data set, on a device.
        plain: The reader of plaintext, in whose features images are compared.
    """

    def __init__(self, plan: Plan, source: NpzImages, data: dict[Split, Resident], plain: Reader) -> None:
        self._plan, self._source, self._data, self._plain = plan, source, data, plain.eval()
        train, _, test = (data[split].images for split in SPLITS)
        self._drawn = test[: min(DRAWN, plan.judged_images)]
        self._prior = inverse_problems.train_prior(test.shape[1], plan.unet_of, train, Budget(**plan.decoder_budget))
        self._attributes = self._of_attributes(attribute_inference.pixels)
        self._known = self._reidentified(attribute_inference.pixels)

    def references(self) -> dict[str, Any]:
        """The same attacks on references, where they must succeed."""
        channels, height, width = self._drawn.shape[1:]
        rows = inverse_problems.averaging(channels, (height, width), BLOCK)
        small = decoders.thumbnail(len(rows), self._drawn)
        found: dict[str, Any] = {
            "numbers": len(rows),
            "prior_psnr_db": decoders.likeness(inverse_problems.draw(self._prior, rows, self._drawn), self._drawn)[0],
            "thumbnail_psnr_db": decoders.likeness(small, self._drawn)[0],
        }
        pixels = channels * height * width
        if pixels <= LARGEST:
            weights = np.random.default_rng(0).integers(-7, 8, (3, channels, 2, 2)).astype(np.int8)
            most = decoders.matrix(FunctionalMap(weights, 2, (height, width)))
            found["least_variation_psnr_db"] = self._least_variation(most)
            found["least_variation_numbers"] = len(most)
        return found

    def of(self, reader: Reader, other: FunctionalStem | None, whole: bool = True) -> dict[str, Any]:
        """Results of the attacks on one reader, and on its numbers together with another one's.

        Args:
            reader: With a functional stem.
            other: Of another reader.
            whole: Whether its backbone is trained: else only what is asked of the stem.
        """
        stem = reader.eval().stem
        assert isinstance(stem, FunctionalStem)
        found: dict[str, Any] = {
            "reidentified": {
                "functional": self._reidentified(stem.seen)[0], "plaintext": self._known[0], "chance": self._known[1]
            },
            "attributes": {
                name: {"functional": score, "plaintext": self._attributes[name][0], "chance": chance}
                for name, (score, chance) in self._of_attributes(stem.seen).items()
            },
            "host_and_server_psnr_db": joined_parties(self._drawn),
        }  # fmt: skip
        if stem.form != "layer":
            return found
        rows, given = decoders.matrix(stem.map.frozen()), stem.noisy(self._drawn)
        guesses = {"prior": inverse_problems.draw(self._prior, rows, given)}
        if other is not None:
            both = np.concatenate([rows, decoders.matrix(other.map.frozen())])
            guesses["prior_two_readers"] = inverse_problems.draw(self._prior, both, given)
        found["rebuilt"] = {name: decoders.likeness(guess, self._drawn) for name, guess in guesses.items()}
        found["perceptual"] = {name: distance(self._plain, guess, self._drawn) for name, guess in guesses.items()}
        if rows.shape[1] <= LARGEST and not stem.noise:  # with noise no image in the box has these numbers
            found["least_variation_psnr_db"] = self._least_variation(rows)
        if not whole:
            return found
        found["damaged"] = damaged(reader, self._data["test"], self._plan.metric)
        found["host_to_plaintext_time"] = host_cost(reader, self._plain, self._drawn)
        return found

    def _least_variation(self, rows: Any) -> float:
        images = self._drawn[:SOLVED].cpu()
        solved = np.stack([inverse_problems.least_variation(rows, image.numpy()) for image in images])
        return decoders.likeness(torch.from_numpy(solved).float(), images)[0]

    def _reidentified(self, seen: attribute_inference.Seen) -> tuple[float, float]:
        train, test = self._data["train"].images, self._data["test"].images
        return attribute_inference.reidentified(seen, train, test, self._source.groups("test"))

    def _of_attributes(self, seen: attribute_inference.Seen) -> dict[str, tuple[float, float]]:
        """Balanced accuracy and chance of each attribute."""
        images = [self._data[split].images for split in SPLITS]
        columns = {"mirrored": [attribute_inference.mirrored(part) for part in images]}
        for name in self._source.attributes("train"):
            values = [torch.from_numpy(self._source.attributes(split)[name]) for split in SPLITS]
            columns[name] = list(zip(images, values, strict=True))
        return {
            name: (attribute_inference.attribute(seen, parts), 1 / len(set(parts[2][1].tolist())))
            for name, parts in columns.items()
        }


def distance(plain: Reader, guess: Tensor, images: Tensor) -> float:
    """`perceptual_distance` of rebuilt levels and images, in the features of a reader of plaintext."""
    levels = guess.round().clamp(0, 255).to(torch.uint8)
    parts = list(zip(torch.split(levels, 64), torch.split(images, 64), strict=True))
    stages: dict[str, nn.Module] = plain.backbone.stages(plain.stem(images[:2]))
    total = sum(perceptual_distance(plain, stages, one, other) * len(one) for one, other in parts)
    return total / len(images)


def joined_parties(images: Tensor) -> float:
    """PSNR in dB of what host and key server have together: ciphertext and mask, of which the image follows."""
    levels = images.cpu().numpy().astype(np.uint32)
    mask = reading_mask([Key.generate().image_keys(bytes(range(16)))], levels.shape)[0]
    together = remove_mask(add_mask(levels, mask), mask)
    return decoders.likeness(torch.from_numpy(together.astype(np.float32)), images.cpu())[0]


@torch.no_grad()
def damaged(reader: Reader, test: Resident, metric: str) -> dict[str, float]:
    """The reader's figure on files of which 1 % was hit: words in a row, as a lost block, and bytes here and there.

    Nothing repairs a reading layer. The host takes numbers that no image can give for lost, and reads the mean instead.
    """
    draw = np.random.default_rng(0)
    assert isinstance(reader.stem, FunctionalStem)
    images = reader.stem.noisy(test.images).cpu().numpy().astype(np.int64)
    ciphertext = draw.integers(0, 1 << 32, images.shape)
    found = {}
    for name in ("intact", "run_1pct", "bytes_1pct"):
        hit = _hit(name, ciphertext, draw)
        words = torch.from_numpy((images + hit - ciphertext) % (1 << 32)).to(test.images.device)
        found[name] = judge(_OfWords(reader), Resident(words, test.targets, test.volumes), metric)
    return found


def _hit(name: str, words: Any, draw: np.random.Generator) -> Any:
    flat = words.reshape(len(words), -1).copy()
    count = flat.shape[1]
    if name == "run_1pct":
        length = max(1, round(HIT * count))
        for image in flat:
            start = draw.integers(0, count - length + 1)
            image[start : start + length] = draw.integers(0, 1 << 32, length)
    if name == "bytes_1pct":
        parts = flat.astype("<u4").view(np.uint8)
        parts[:] = np.where(draw.random(parts.shape) < HIT, draw.integers(0, 256, parts.shape), parts)
        flat = parts.view("<u4").astype(np.int64)
    return flat.reshape(words.shape)


@torch.no_grad()
def host_cost(reader: Reader, plain: Reader, images: Tensor) -> float:
    """How many times as long a host takes, from the layer's words to logits, as plaintext inference, in turns."""
    words, host = images.long(), _OfWords(reader, whole=True).eval()
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(2 * (TURNS + 1)):
        network, given = ((host, words), (plain, images))[turn % 2]
        if images.is_cuda:
            torch.cuda.synchronize()
        started = time.perf_counter()
        network(given).cpu()
        times[turn % 2].append(time.perf_counter() - started)
    one, other = (statistics.median(each[1:]) for each in times)
    return one / other


class _OfWords(Reader):
    """A functional reader as a host runs it: on words of the layer with the mask off."""

    def __init__(self, reader: Reader, whole: bool = False) -> None:
        super().__init__(reader.stem, reader.backbone)
        self._whole = whole

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of words (B, C, H, W)."""
        assert isinstance(self.stem, FunctionalStem)
        logits: Tensor = self.backbone(self.stem.of_centred(self.stem.map.exact(image), whole=self._whole))
        return logits
