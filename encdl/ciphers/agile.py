"""The `agile` cipher: an integer-exact multi-scale dilated network that is a bijection of the 256-level grid.

On the four phases x0..x3 of a picture (see `encdl.nn.phases`), with the bytes b0..b3 that its key planes spell::

    m0 = b0 + F(planes of phases 1, 2, 3)      c0 = x0 + m0      mod 256
    mi = bi + E_i(c0, bits of m0)              ci = xi + mi      mod 256, i = 1, 2, 3

F, the *key field*, and E, the *content coupling*, are multi-scale dilated integer networks. Two properties hold for
any weights, trained or not:

* Decryption is exact: c0 and the key give m0, hence x0, and c0 and m0 give the rest.
* With eight planes, exactly one stack of key planes leads from any picture to any ciphertext (solve for m0 = c0 - x0,
  then bi, then b0). So if the planes are uniformly random, so is the ciphertext, independently of the picture
  (Shannon's perfect secrecy, 1949): the network can spoil nothing, and what remains to trust is the sequence behind
  the planes and the freshness of the nonce.

The masks m follow from the ciphertext and the key alone, so a reader can undo them without forming the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.ciphers import agile_bytes
from encdl.ciphers.agile_networks import WIDE_DILATIONS, ContentCoupling, KeyField
from encdl.ciphers.base import Cipher, check_setting, plane_bytes
from encdl.nn.dilated import DILATIONS, DilatedNet
from encdl.nn.graphs import played
from encdl.nn.integer import wrap
from encdl.nn.phases import circle, from_phases, phases_of, to_phases

MAX_PLANES = 32
MAX_WIDTH = 256
"""Any weights of this width keep every sum below `EXACT_LIMIT`."""
MAX_RESTORER_WIDTH, MAX_RESTORER_BLOCKS = 1024, 64


class AgileCipher(Cipher):
    """The integer-exact cipher (see the module's text), with a float restorer for damaged ciphertexts.

    Args:
        planes: P, key planes a pixel, 1..32. Below 8 the mask has fewer than 256 values a pixel; the uniformity
            above needs 8 or more.
        field_width: Channels a dilation of the key field, 1..256.
        coupling_width: Channels a dilation of the content coupling, 1..256.
        restorer_width: Channels of the restorer, a multiple of 4, up to 1024.
        restorer_blocks: Dilated blocks of the restorer, up to 64.
    """

    name: ClassVar[str] = "agile"
    exact: ClassVar[bool] = True

    def __init__(
        self,
        planes: int = 8,
        field_width: int = 3,
        coupling_width: int = 6,
        restorer_width: int = 32,
        restorer_blocks: int = 4,
    ) -> None:
        super().__init__()
        check_setting("planes", planes, 1, MAX_PLANES)
        check_setting("field_width", field_width, 1, MAX_WIDTH)
        check_setting("coupling_width", coupling_width, 1, MAX_WIDTH)
        check_setting("restorer_width", restorer_width, 4, MAX_RESTORER_WIDTH)
        check_setting("restorer_blocks", restorer_blocks, 0, MAX_RESTORER_BLOCKS)
        self.planes = planes
        self._config = {
            "planes": planes,
            "field_width": field_width,
            "coupling_width": coupling_width,
            "restorer_width": restorer_width,
            "restorer_blocks": restorer_blocks,
        }
        self.key_field = KeyField(planes, field_width)
        self.coupling = ContentCoupling(coupling_width)
        self.restorer = DilatedNet(24, 8, restorer_width, restorer_blocks)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._config)

    def forward(self, image: Tensor, key_planes: Tensor) -> tuple[Tensor, Tensor]:
        """Encrypt with gradients; see `Cipher.forward`."""
        x = to_phases(image)
        m0, key_bytes = self._first_mask(key_planes)
        c0 = wrap(x[:, :1] + m0)
        mask = torch.cat([m0, self._other_masks(c0, m0, key_bytes)], dim=1)
        height, width = image.shape[-2:]
        return from_phases(wrap(x + mask), height, width), from_phases(mask, height, width)

    def _encrypt(self, image: Tensor, key_planes: Tensor) -> Tensor:
        if not _on_bytes(image):
            return self._played(super()._encrypt, image, key_planes)
        return image + agile_bytes.masks(self.key_field, self.coupling, image, key_planes, clear=True)

    def _decrypt(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        return ciphertext - self._mask(ciphertext, key_planes)  # uint8 wraps at 256 by itself

    def _mask(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        if not _on_bytes(ciphertext):
            return self._played(self._mask_by_floats, ciphertext, key_planes)
        return agile_bytes.masks(self.key_field, self.coupling, ciphertext, key_planes, clear=False)

    def _played(self, function: Callable[..., Tensor], picture: Tensor, key_planes: Tensor) -> Tensor:
        weights = (weight for module in self.encryption_modules() for weight in module.parameters())
        return played(self, weights, function, picture, key_planes)

    def _mask_by_floats(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        return self._mask_levels(ciphertext.float(), key_planes.float()).to(torch.uint8)

    # The masks as levels in float32, with gradients.

    def _mask_levels(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        c0 = ciphertext[..., ::2, ::2]
        m0, key_bytes = self._first_mask(key_planes)
        mask = torch.cat([m0, self._other_masks(c0, m0, key_bytes)], dim=1)
        return from_phases(mask, *ciphertext.shape[-2:])

    def _first_mask(self, key_planes: Tensor) -> tuple[Tensor, Tensor]:
        """m0 (N, 1, h, w) and the key bytes of phases 1, 2, 3 (N, 3, h, w)."""
        key_bytes = to_phases(plane_bytes(key_planes))
        signs = torch.cat(phases_of(key_planes)[1:], dim=1).mul_(2).sub_(1)
        return wrap(key_bytes[:, :1] + self.key_field(signs)), key_bytes[:, 1:]

    def _other_masks(self, c0: Tensor, m0: Tensor, key_bytes: Tensor) -> Tensor:
        return wrap(key_bytes + self.coupling(c0, m0))

    def logits(self, ciphertext: Tensor, key_planes: Tensor, lost: Tensor) -> Tensor:
        """What the restorer makes of a damaged ciphertext; see `Cipher.logits`."""
        unmasked = to_phases(wrap(ciphertext - self._mask_levels(ciphertext, key_planes)))
        # Intact pixels pass by the network (gate near 1, nothing added), so that it learns only the repair.
        level = (unmasked / 255.0).clamp(1 / 512, 1 - 1 / 512).logit()
        features = [circle(unmasked), circle(to_phases(ciphertext)), level / 6.0, to_phases(lost)]
        gate, change = self.restorer(torch.cat(features, dim=1)).chunk(2, dim=1)
        return from_phases((gate + 2.0).sigmoid() * level + change, *ciphertext.shape[-2:])

    def reach(self, lost: Tensor) -> Tensor:
        """A lost pixel touches itself; one of phase 0 also what the coupling spreads it to."""
        phases = to_phases(lost)
        spread = phases[:, :1]
        for radius in (max(DILATIONS), max(WIDE_DILATIONS), 1):
            spread = F.max_pool2d(spread, 2 * radius + 1, stride=1, padding=radius)
        touched = torch.cat(
            [phases[:, :1], torch.maximum(phases[:, 1:], spread.expand(-1, 3, -1, -1))], dim=1
        )
        return from_phases(touched, *lost.shape[-2:]).bool()

    def encryption_modules(self) -> list[nn.Module]:
        """The parts that decide a ciphertext; their weights are what the weights id names."""
        return [self.key_field, self.coupling]


def _on_bytes(picture: Tensor) -> bool:
    """Whether masks are computed on bytes: on a CPU that can."""
    return picture.device.type == "cpu" and agile_bytes.available()
