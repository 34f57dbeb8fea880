"""The `keystream` cipher: no network at all between the key planes and the image, for comparison.

    ciphertext = image + the byte that the key planes spell     modulo 256

Damage of its ciphertext is damage of the image, as under `agile`, and the same decryption network repairs it.
"""

from __future__ import annotations

from torch import Tensor, nn

from encdl.ciphers.base import CIPHERS, KeyedMaskCipher


@CIPHERS.register("keystream")
class KeystreamCipher(KeyedMaskCipher):
    """See the module's text; for the arguments `KeyedMaskCipher`."""

    def key_mask(self, key_planes: Tensor) -> Tensor:
        """The byte that the planes spell."""
        return self.spelled(key_planes)

    def encryption_modules(self) -> list[nn.Module]:
        """None."""
        return []
