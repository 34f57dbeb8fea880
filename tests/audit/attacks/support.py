"""Tiny scenes for attacks: real slices, so small that an attack takes a second."""

from __future__ import annotations

import functools
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from encdl import ciphers
from encdl.audit.attacks.base import Scene
from encdl.audit.attacks.targets import CipherTarget, Target, cipher_target
from encdl.ciphers.base import Cipher
from tests.mni import mni_slice

TRAIN, TEST = 192, 48


SMALL = {"width": 8, "blocks": 1}
"""Settings of every cipher whose decryption nobody waits for."""


@functools.cache
def cipher(name: str = "agile") -> Cipher:
    """An untrained cipher: as exact, and as hard to break, as a trained one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ciphers.create(name, dict(SMALL)).eval()


def agile(mode: str = "default") -> CipherTarget:
    return cipher_target(cipher(), mode)


@functools.cache
def scene(side: int = 16, train: int = TRAIN, test: int = TEST) -> Scene:
    """Cuts from MRI slices; the test's are of other slices than the training's. Classes: below and above the eyes."""
    random = np.random.default_rng(0)
    (seen, seen_labels), (asked, asked_labels) = (
        _cuts(slices, count, side, random) for slices, count in ((range(50, 150, 4), train), (range(52, 150, 4), test))
    )
    return Scene(seen, asked, seen_labels, asked_labels)


@functools.cache
def wide_scene(count: int = 6) -> Scene:
    """The small scene with images of 256 pixels, within a wide black margin.

    The dilated convolutions of `agile` see so far that the masks of background near the image do not follow from
    ciphertext alone.
    """
    slices = torch.cat([mni_slice(index, 256, 256)[..., ::2, ::2] for index in range(60, 60 + 8 * count, 8)])
    return replace(scene(8), large=F.pad(slices, [64] * 4))


def _cuts(slices: range, count: int, side: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    images, labels = [], []
    for number in range(count):
        index = slices[number % len(slices)]
        left, top = random.integers(0, 24, 2)
        cut = mni_slice(index, 216, 216)[0, 0].numpy()[top : top + 192, left : left + 192]
        images.append(torch.from_numpy(cv2.resize(cut, (side, side), interpolation=cv2.INTER_AREA)))
        labels.append(int(index >= 100))
    return torch.stack(images)[:, None].contiguous(), torch.tensor(labels)


class Noise(Target):
    """Uniform noise: nothing can be learnt from it."""

    name = "noise"
    mode = "default"

    def __init__(self, owner: int = 0) -> None:
        self.owner = owner

    def encrypt(self, images: Tensor, first: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(1 + first + 10**9 * self.owner)
        return torch.randint(0, 256, images.shape, generator=generator, dtype=torch.uint8)

    def under(self, owner: int) -> Noise:
        return Noise(owner)
