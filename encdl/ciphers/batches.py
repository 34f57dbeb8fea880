"""Whole batches of images from their nonces to the bytes of their files and back, where the images are.

On a GPU sub-keys, keystream, mask, addition and interleaver are all computed there: the host sends nonces. On a CPU the
same steps give the same bytes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from encdl.ciphers import device
from encdl.ciphers.base import KeyedMaskCipher
from encdl.ciphers.compiled_ciphers import INTERLEAVE_DOMAIN
from encdl.ciphers.nn.plane_tensors import plane_tensor
from encdl.ciphers.postprocess import interleave
from encdl.keys import derivation
from encdl.keys.planes import PlaneSpec
from encdl.utils.errors import UsageError


def encrypt(cipher: KeyedMaskCipher, images: Tensor, study_secret: bytes, nonces: Tensor) -> Tensor:
    """Encrypt images under default settings: what files hold of the same chunks.

    Args:
        cipher: Its mask follows from the key alone.
        images: uint8 (B, C, H, W).
        study_secret: 32 bytes (`encdl.keys.derivation.study_secret`).
        nonces: uint8 (B, 16) on the images' device, each fresh from the operating system.

    Returns:
        uint8 (B, C, H, W).

    Raises:
        UsageError: Nonces of another shape, type or device.
    """
    return _coded(cipher, images, study_secret, nonces, undo=False)


def decrypt(cipher: KeyedMaskCipher, files: Tensor, study_secret: bytes, nonces: Tensor) -> Tensor:
    """Undo `encrypt`, with its arguments and errors."""
    return _coded(cipher, files, study_secret, nonces, undo=True)


@torch.no_grad()
def _coded(cipher: KeyedMaskCipher, images: Tensor, secret: bytes, nonces: Tensor, undo: bool) -> Tensor:
    if nonces.shape != (len(images), derivation.NONCE_BYTES) or nonces.dtype != torch.uint8:
        raise UsageError(f"nonces of {len(images)} images must be uint8 ({len(images)}, 16), got {tuple(nonces.shape)}")
    if nonces.device != images.device:
        raise UsageError(f"nonces are on {nonces.device}: bring them to the images, on {images.device}")
    if device.available(images.device):
        from encdl.ciphers.device import derivation as on_device  # noqa: PLC0415
        from encdl.ciphers.device import interleave as kernels  # noqa: PLC0415

        planes = on_device.seeded_planes(on_device.plane_seeds(secret, nonces), PlaneSpec(), images.shape[1:])
        starts = kernels.starts_of(nonces, INTERLEAVE_DOMAIN, images[0].numel())
        return kernels.moved(images, starts, undo, cipher.field(planes, planes))
    told = [row.tobytes() for row in nonces.numpy()]
    keys = [derivation.image_keys(derivation.image_secret(secret, nonce), nonce) for nonce in told]
    planes = plane_tensor([each.planes for each in keys], PlaneSpec(), images.shape[1:])
    if undo:
        return cipher.decrypt(interleave.deinterleave(images, told), planes)
    return interleave.interleave(cipher.encrypt(images, planes), told)
