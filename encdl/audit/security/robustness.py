"""How the image fares when its ciphertext is damaged, by the strength of the damage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from encdl.audit.attacks.targets import CipherTarget
from encdl.ciphers.channel import stored
from encdl.ciphers.damage import Damage, GaussianNoise, LostRun, SaltPepper
from encdl.metrics.quality import mean_psnr_db

CURVES: Final[dict[str, tuple[Callable[[float], Damage], tuple[float, ...]]]] = {
    "salt_pepper": (SaltPepper, (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)),
    "gaussian": (GaussianNoise, (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)),
    "lost_run": (LostRun, (0.05, 0.1, 0.25, 0.5)),
}
"""Damages with their strengths: share of pixels, deviation in levels, share of the file that is lost in one run."""


def curves(target: CipherTarget, images: Tensor, seed: int) -> dict[str, dict[str, list[float]]]:
    """PSNR in dB after damage to the ciphertext.

    Args:
        target: The cipher in one mode.
        images: uint8 (B, C, H, W).
        seed: Draws the damage.

    Returns:
        By damage: `strength`, and as long as it `restored` (by the restorer) and `decrypted` (without it).
    """
    keys, planes = target.image_keys(images), target.planes(images)
    ciphertext = target.cipher.encrypt(images, planes)
    found: dict[str, dict[str, list[float]]] = {}
    for name, (kind, strengths) in CURVES.items():
        curve: dict[str, list[float]] = {"strength": list(strengths), "restored": [], "decrypted": []}
        for strength in strengths:
            generator = torch.Generator().manual_seed(seed)
            damaged, lost = stored(kind(strength), ciphertext, generator, target.process, keys)
            restored = target.cipher.restore(damaged, planes, lost)
            curve["restored"].append(float(mean_psnr_db(restored, images)))
            curve["decrypted"].append(float(mean_psnr_db(target.cipher.decrypt(damaged, planes), images)))
        found[name] = curve
    return found
