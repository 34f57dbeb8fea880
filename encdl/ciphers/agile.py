"""The `agile` cipher: a mask from the key planes alone, by an integer network; a dilated network repairs damage.

    ciphertext = image + mask(key planes)     modulo 256

What hides the image is the sequence behind the key planes. The encryption network (`encdl.ciphers.mask_network`) is a
bijection from key planes to masks, so that with eight uniformly random planes exactly one stack leads from any image to
any ciphertext (Shannon's perfect secrecy, 1949): the network can spoil nothing, and it adds no secrecy that could be
shown. What remains to trust is the sequence and the freshness of the nonce.

As no mask depends on the image, damage of a ciphertext is damage of the same pixels of the image, and nothing more: the
decryption network (`encdl.nn.decryption`) says which pixels were hit, and what they were.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from encdl.ciphers import mask_bytes
from encdl.ciphers.base import MAX_PLANES, KeyedMaskCipher, check_setting
from encdl.ciphers.mask_network import MaskNetwork
from encdl.nn.decryption import DecryptionNetwork
from encdl.nn.graphs import played

MAX_WIDTH, MAX_BLOCKS = 1024, 64


class AgileCipher(KeyedMaskCipher):
    """See the module's text.

    Args:
        planes: P, key planes a pixel, 1..8. Below 8 the mask has fewer than 256 values a pixel and shows the image: for
            research and audits; no file is encrypted so.
        width: Channels of the decryption network, a multiple of 4, up to 1024.
        blocks: Its dilated blocks, up to 64.
    """

    name: ClassVar[str] = "agile"
    revision: ClassVar[int] = 2

    def __init__(self, planes: int = 8, width: int = 64, blocks: int = 10) -> None:
        super().__init__()
        check_setting("planes", planes, 1, MAX_PLANES)
        check_setting("width", width, 4, MAX_WIDTH)
        check_setting("blocks", blocks, 0, MAX_BLOCKS)
        self.planes = planes
        self._config = {"planes": planes, "width": width, "blocks": blocks}
        self.encryption = MaskNetwork()
        self.decryption = DecryptionNetwork(width, blocks)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._config)

    def key_mask(self, key_planes: Tensor) -> Tensor:
        """The mask under key planes, both (N, 1, H, W) uint8: by compiled code on a CPU that can."""
        spelled = self.spelled(key_planes)
        if spelled.device.type == "cpu" and mask_bytes.available():
            return mask_bytes.masks(spelled)
        return played(self, self.encryption.buffers(), self.encryption.forward, spelled)

    def encryption_modules(self) -> list[nn.Module]:
        """The mask network, which is the same in all weights."""
        return [self.encryption]
