"""Training a cipher together with the reader of its ciphertext.

What can be gained depends on the cipher. With the `agile` one and eight key planes, ciphertext and mask of any picture
have the same distribution whatever its weights (`encdl.ciphers.agile`), so no weights are easier to read than others:
tuning is harmless there, since decryption stays exact and ciphertexts uniform, and idle. The `thesis` cipher can learn
to be easier to read. Nothing here keeps it secret while it does: measure it with `encdl evaluate` afterwards.
"""

from __future__ import annotations

import torch
from torch import Tensor

from encdl.ciphers.base import Cipher
from encdl.errors import UsageError
from encdl.losses import BinaryLikelihoodLoss
from encdl.nn.phases import fold_channels
from encdl.readers import GatedStem, Stem
from encdl.tasks.views import Ciphertext, Sight, View


def free_encryption(cipher: Cipher) -> None:
    """Let the weights that decide a ciphertext be trained; those that restore damaged ones stay frozen."""
    for module in cipher.encryption_modules():
        module.requires_grad_(True)


def check_tunable(view: View, stem: Stem) -> None:
    """Refuse a reader from which a cipher has nothing to learn.

    Raises:
        UsageError: It is another view than the ciphertext with its key, or another stem than the gated one: the keyed
            stem's result does not depend on an exact cipher at all.
    """
    if not isinstance(view, Ciphertext) or not isinstance(stem, GatedStem):
        raise UsageError(
            "model.tune_cipher needs the view Ciphertext with the stem encdl.readers.GatedStem, not "
            f"{type(view).__name__} with {type(stem).__name__}: set both, or tune_cipher to false"
        )


def tuned_sight(cipher: Cipher, image: Tensor, planes: Tensor) -> tuple[Sight, Tensor]:
    """Ciphertext and mask with gradients for the cipher, and what keeps the ciphertext decryptable.

    Args:
        cipher: The cipher.
        image: uint8 (B, C, H, W).
        planes: Key planes, uint8 (B, C, P, H, W).

    Returns:
        Both as levels in float32 (B, C, H, W); and the loss of decryption, a scalar that is 0 for exact ciphers.
    """
    flat, bits = fold_channels(image).unsqueeze(1).float(), fold_channels(planes).float()
    with torch.autocast(image.device.type, enabled=False):
        ciphertext, mask = cipher(flat, bits)
        if cipher.exact:
            return Sight(ciphertext.view(image.shape), mask.view(image.shape)), flat.new_zeros(())
        logits = cipher.logits(ciphertext, bits, torch.zeros_like(flat))
        loss: Tensor = BinaryLikelihoodLoss()(logits, flat)
    exact = ciphertext.detach().round().to(torch.uint8).view(image.shape)
    return Sight(ciphertext.view(image.shape), cipher.field(exact, planes)), loss
