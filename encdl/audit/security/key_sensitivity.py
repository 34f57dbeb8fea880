"""Key sensitivity and key space: how much one wrong bit of a key changes, and how many keys there are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from encdl.audit.attacks.targets import CipherTarget
from encdl.ciphers.nn.plane_tensors import plane_tensor
from encdl.keys.planes import KEY_BITS, key_bits
from encdl.metrics.differential import npcr_pct
from encdl.metrics.quality import mean_psnr_db


def sensitivity(target: CipherTarget, images: Tensor, seed: int) -> dict[str, Any]:
    """Encrypt and decrypt with a key of which one bit is wrong.

    Args:
        target: Without post-processing.
        images: uint8 (B, C, H, W).
        seed: Draws the bits.

    Returns:
        For one bit of the sub-key that seeds the key planes, and for one bit of one key plane: `npcr_pct` between the
        ciphertexts, and `psnr_db` of the image that the wrong key opens; `mean_image_psnr_db` beside them. One bit
        of a plane is no key that anyone could hold: it shows how far the network alone spreads it.
    """
    keys = target.image_keys(images)
    planes = target.planes(images)
    ciphertext = target.cipher.encrypt(images, planes)
    generator = torch.Generator().manual_seed(seed)
    near = [_one_bit_off(one.planes, int(torch.randint(0, KEY_BITS, (1,), generator=generator))) for one in keys]
    wrong = {"seed_bit": plane_tensor(near, target.spec, images.shape[1:], images.device), "plane_bit": planes.clone()}
    flat = wrong["plane_bit"].flatten(1)
    places = torch.randint(0, flat.shape[1], (len(flat), 1), generator=generator).to(flat.device)
    bits = 1 << torch.randint(0, target.cipher.planes, (len(flat), 1), generator=generator)
    flat.scatter_(1, places, flat.gather(1, places) ^ bits.to(flat.device, torch.uint8))
    mean = images.float().mean(0).round().to(torch.uint8).expand_as(images)
    found: dict[str, Any] = {"mean_image_psnr_db": float(mean_psnr_db(mean, images))}
    for name, other in wrong.items():
        found[name] = {
            "npcr_pct": float(npcr_pct(ciphertext, target.cipher.encrypt(images, other)).mean()),
            "psnr_db": float(mean_psnr_db(target.cipher.decrypt(ciphertext, other), images)),
        }
    return found


def space(target: CipherTarget, side: int, channels: int) -> dict[str, Any]:
    """Key bits of a mode at an image's size: the master key's, and those of the planes, which a period may cap."""
    return {"master_key_bits": KEY_BITS, "true_bits": key_bits(target.spec, channels, side, side)}


def _one_bit_off(secret: bytes, bit: int) -> bytes:
    changed = bytearray(secret)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
