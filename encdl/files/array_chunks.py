"""As `encdl.files.chunk_cipher`, for files on a processor: compiled code on arrays, without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from encdl.ciphers.compiled_ciphers import Bytes, FixedMask, interleaved
from encdl.keys.derivation import ImageKeys
from encdl.keys.planes import PlaneSpec, key_planes

POSTPROCESS = ("interleave", "none")
"""The post-processings that need no PyTorch."""


class ArrayChunks:
    """Encrypts chunks and back. Chunks of one call have one shape, and each has its own keys.

    Args:
        cipher: the cipher.
        planes: how to make the key planes.
        postprocess: one of `POSTPROCESS`.
    """

    at_once = 2**19
    """Bytes of chunks that one call should hold."""

    def __init__(self, cipher: FixedMask, planes: PlaneSpec, postprocess: str) -> None:
        self._cipher, self._planes, self._interleaved = cipher, planes, postprocess == "interleave"

    def encrypt(self, chunks: Sequence[Bytes], keys: Sequence[ImageKeys]) -> Bytes:
        """Byte planes uint8 (planes, h, w) of B chunks to their ciphertexts, uint8 (B, planes, h, w)."""
        ciphertext = np.stack(chunks)
        ciphertext += self._mask(ciphertext, keys)  # uint8 wraps at 256 by itself
        return interleaved(ciphertext, [key.nonce for key in keys]) if self._interleaved else ciphertext

    def decrypt(self, bodies: Sequence[Bytes], keys: Sequence[ImageKeys]) -> Bytes:
        """Undo `encrypt`, once the ciphertexts were found authentic."""
        image = np.stack(bodies)
        if self._interleaved:
            image = interleaved(image, [key.nonce for key in keys], undo=True)
        image -= self._mask(image, keys)
        return image

    def _mask(self, images: Bytes, keys: Sequence[ImageKeys]) -> Bytes:
        return self._cipher.mask(key_planes([key.planes for key in keys], self._planes, *images.shape[1:]))
