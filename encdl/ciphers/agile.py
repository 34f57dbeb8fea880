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

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encdl.ciphers.base import Cipher, check_setting, plane_bytes
from encdl.nn.dilated import DILATIONS, DilatedNet
from encdl.nn.integer import EXACT_LIMIT, IntegerConv2d, IntegerDilatedStage, shift_clamp, triangle, wrap
from encdl.nn.phases import circle, from_phases, phases_of, to_phases

MAX_PLANES = 32
MAX_WIDTH = 256
"""Any weights of this width keep every sum below `EXACT_LIMIT`."""
MAX_RESTORER_WIDTH, MAX_RESTORER_BLOCKS = 1024, 64
WIDE_DILATIONS = (1, 4, 8, 16)
"""Dilations of the coupling's second stage: far enough that a flat background, too, takes part."""


class KeyField(nn.Module):
    """F: the ±1 planes of phases 1, 2 and 3 to an integer a pixel of phase 0; (N, 3P, h, w) -> (N, 1, h, w)."""

    def __init__(self, planes: int, width: int) -> None:
        super().__init__()
        hidden = width * len(DILATIONS)
        self.first = IntegerDilatedStage(3 * planes, width, DILATIONS, shift=0)
        self.second = IntegerDilatedStage(hidden, width, DILATIONS, shift=4)
        self.out = IntegerConv2d(hidden, 1)

    def forward(self, signs: Tensor) -> Tensor:
        """See the class."""
        out: Tensor = self.out(self.second(self.first(signs)))
        return out


class ContentCoupling(nn.Module):
    """E: masked phase 0 and its mask to an integer a pixel of phases 1, 2 and 3; two (N, 1, h, w) -> (N, 3, h, w).

    The bits of the mask sign the circular features of the masked phase, so the key decides how content spreads.
    Many small taps, rather than a few strong ones, carry it: with a share p of the pixels damaged the masks move by
    about sqrt(p) of their whole swing, so that damage stays damage and does not become chaos.
    """

    INPUT_SHIFT, OUTPUT_SHIFT = 1, 1
    KEY_LEVEL = 16.0
    """The key bits enter as plus or minus this, beside content features in -32..32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = width * len(DILATIONS)
        self.first = IntegerDilatedStage(16, width, DILATIONS, shift=4)
        self.second = IntegerDilatedStage(hidden, width, WIDE_DILATIONS, shift=5)
        self.out = IntegerConv2d(hidden, 3)

    def forward(self, masked: Tensor, mask: Tensor) -> Tensor:
        """See the class."""
        with torch.no_grad():  # bits have no gradient, and the key has none to take
            powers = torch.tensor([1 << bit for bit in range(8)], device=mask.device).view(1, 8, 1, 1)
            signs = mask.detach().int().bitwise_and(powers).ne(0).float() * 2 - 1
        features = [shift_clamp(triangle(masked, offset), self.INPUT_SHIFT, -32, 32) for offset in (0, 64)]
        signed = signs * torch.cat(features, dim=1).repeat(1, 4, 1, 1)
        hidden = self.second(self.first(torch.cat([signed, signs * self.KEY_LEVEL], dim=1)))
        return shift_clamp(self.out(hidden), self.OUTPUT_SHIFT, -EXACT_LIMIT, EXACT_LIMIT)


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

    def _decrypt(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
        return wrap(ciphertext - self._mask(ciphertext, key_planes))

    def _mask(self, ciphertext: Tensor, key_planes: Tensor) -> Tensor:
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
        unmasked = to_phases(wrap(ciphertext - self._mask(ciphertext, key_planes)))
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
