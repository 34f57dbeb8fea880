"""Damaged images with known answers."""

from __future__ import annotations

import cv2
import numpy as np

from encdl.metrics.classical_repair.impulses import Image, Mask
from tests.mni import mni_slice


def brain(index: int = 90, side: int = 96) -> Image:
    """A whole slice with its black background, made smaller."""
    whole = mni_slice(index, 216, 216)[0, 0].numpy()
    return np.asarray(cv2.resize(whole, (side, side), interpolation=cv2.INTER_AREA))


def noisy(image: Image, sigma: float, seed: int = 0) -> np.ndarray:
    """With Gaussian noise, float64, neither rounded nor wrapped."""
    return image + sigma * np.random.default_rng(seed).standard_normal(image.shape)


def wrapped(levels: np.ndarray) -> Image:
    """As noise on a ciphertext leaves an image: whole levels mod 256."""
    return (np.rint(levels) % 256).astype(np.uint8)


def hit(image: Image, share: float, seed: int = 0) -> tuple[Image, Mask]:
    """With random levels at random places, and where."""
    generator = np.random.default_rng(seed)
    places = generator.random(image.shape) < share
    return np.where(places, generator.integers(0, 256, image.shape), image).astype(np.uint8), places


def scattered(image: Image, share: float = 0.25, seed: int = 0) -> Mask:
    return np.random.default_rng(seed).random(image.shape) < share
