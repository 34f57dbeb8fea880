"""The key planes of one picture by algebra, for whoever knows the picture and its ciphertext.

With eight planes exactly one stack of them leads `agile` from a picture to a ciphertext (`encdl.ciphers.agile`): that
is why a ciphertext alone tells nothing, and why a pair tells all planes of this picture. What they are worth for the
next picture depends on the nonce.
"""

from __future__ import annotations

import torch
from torch import Tensor

from encdl.ciphers.agile import AgileCipher
from encdl.ciphers.base import Cipher
from encdl.nn.integer import wrap
from encdl.nn.phases import from_phases, to_phases


def solvable(cipher: Cipher, picture: Tensor) -> bool:
    """Whether `agile_planes` serves: odd sizes are padded for the phases, and the margin's planes are not known."""
    return (
        isinstance(cipher, AgileCipher)
        and cipher.planes == 8
        and not any(side % 2 for side in picture.shape[2:])
    )


@torch.no_grad()
def agile_planes(cipher: AgileCipher, plaintext: Tensor, ciphertext: Tensor) -> Tensor:
    """The one stack of eight key planes that leads from a picture to its ciphertext.

    Args:
        cipher: Of 8 planes.
        plaintext: uint8 (B, C, H, W), H and W even.
        ciphertext: uint8 of the same shape.

    Returns:
        uint8 (B, C, 8, H, W).
    """
    batch, channels, height, width = ciphertext.shape
    x, c = (to_phases(each.reshape(-1, 1, height, width).float()) for each in (plaintext, ciphertext))
    m0 = wrap(c[:, :1] - x[:, :1])
    others = wrap(c[:, 1:] - x[:, 1:] - cipher.coupling(c[:, :1], m0))
    spread = from_phases(torch.cat([torch.zeros_like(m0), others], 1), height, width)
    signs = to_phases(bits(spread).float()) * 2 - 1  # plane p at channels 4p..4p+3
    field = cipher.key_field(torch.cat([signs[:, phase::4] for phase in (1, 2, 3)], 1))
    whole = from_phases(torch.cat([wrap(m0 - field), others], 1), height, width)
    return bits(whole).view(batch, channels, 8, height, width)


def bits(levels: Tensor) -> Tensor:
    """Bit p of each byte as plane p: (N, 1, H, W), 0 to 255 of any type -> uint8 (N, 8, H, W)."""
    shifts = torch.arange(8, device=levels.device).view(1, -1, 1, 1)
    return ((levels.int() >> shifts) & 1).to(torch.uint8)
