"""The `keystream` cipher: no network at all between the key planes and the image, for comparison.

    ciphertext = image + the byte that the key planes spell     modulo 256

Damage of its ciphertext is damage of the image, as under `agile`, and the same decryption network repairs it.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from encdl.ciphers.agile import MAX_BLOCKS, MAX_WIDTH
from encdl.ciphers.base import MAX_PLANES, KeyedMaskCipher, check_setting
from encdl.nn.decryption import DecryptionNetwork


class KeystreamCipher(KeyedMaskCipher):
    """See the module's text; the arguments are those of `AgileCipher`."""

    name: ClassVar[str] = "keystream"

    def __init__(self, planes: int = 8, width: int = 64, blocks: int = 10) -> None:
        super().__init__()
        check_setting("planes", planes, 1, MAX_PLANES)
        check_setting("width", width, 4, MAX_WIDTH)
        check_setting("blocks", blocks, 0, MAX_BLOCKS)
        self.planes = planes
        self._config = {"planes": planes, "width": width, "blocks": blocks}
        self.decryption = DecryptionNetwork(width, blocks)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._config)

    def key_mask(self, key_planes: Tensor) -> Tensor:
        """The byte that the planes spell."""
        return self.spelled(key_planes)

    def encryption_modules(self) -> list[nn.Module]:
        """None."""
        return []
