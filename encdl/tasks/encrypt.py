"""Training of a cipher: `EncryptTask`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from encdl.batch import ImageBatch
from encdl.ciphers.base import Cipher
from encdl.damage import DAMAGES
from encdl.keys.planes import PlaneSpec
from encdl.losses import (
    AdversaryLoss,
    AutocorrelationLoss,
    BinaryLikelihoodLoss,
    ContentActivityLoss,
    UniformityLoss,
    WrongKeyLoss,
)
from encdl.metrics.quality import content_activity, mean_psnr_db
from encdl.metrics.statistics import entropy_bits
from encdl.nn.phases import fold_channels
from encdl.panels import cipher_columns
from encdl.tasks.base import CipherTask
from encdl.tasks.damages import RandomDamage


@dataclass(frozen=True)
class LossWeights:
    """What each loss counts; 0 leaves it out."""

    likelihood: float = 1.0
    activity: float = 1.0
    uniformity: float = 0.0
    autocorrelation: float = 0.0
    adversary: float = 0.0
    wrong_key: float = 0.0


class EncryptTask(CipherTask):
    """Trains a cipher on pictures of any data set, under fresh keys for every picture and step.

    Args:
        cipher: What to train.
        planes: Map and expansion of the training keys.
        weights: What each loss counts.
        damage: The damage that the restorer learns to undo.
        activity_target: Content activity wanted over all pixels, 0..1.
        adversary_strength: Scale of the reversed gradient from the attacker network to the cipher.
        learning_rate: Peak of the one-cycle schedule (Smith and Topin 2019, arXiv:1708.07120).
        seed: Fixes training keys and damage; the pictures are fixed by the data module's seed, the first weights by
            `seed_everything`.
    """

    def __init__(
        self,
        cipher: Cipher,
        planes: PlaneSpec = PlaneSpec(),  # noqa: B008
        weights: LossWeights = LossWeights(),
        damage: RandomDamage = RandomDamage(),  # noqa: B008
        activity_target: float = 0.6,
        adversary_strength: float = 0.1,
        learning_rate: float = 4e-3,
        seed: int = 0,
    ) -> None:
        super().__init__(cipher, planes, learning_rate, weight_decay=0.0, seed=seed)
        self.weights, self.damage = weights, damage
        self.likelihood = BinaryLikelihoodLoss()
        self.activity = ContentActivityLoss(activity_target)
        self.uniformity = UniformityLoss()
        self.autocorrelation = AutocorrelationLoss()
        self.wrong_key = WrongKeyLoss()
        self.adversary = AdversaryLoss(adversary_strength) if weights.adversary > 0 else None

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """One step: encrypt under fresh keys, damage, restore; the sum of the weighted losses."""
        step = self.training_draws
        image = fold_channels(batch["image"]).unsqueeze(1).float()
        planes = self._planes(batch["image"], "train", step)
        with torch.autocast(self.device.type, enabled=False):
            losses = self._losses(image, fold_channels(planes).float(), self._generator("train", step))
        loss = torch.stack([getattr(self.weights, name) * value for name, value in losses.items()]).sum()
        self.log_dict(
            {f"train/{name}": value for name, value in losses.items()}, sync_dist=True, batch_size=len(image)
        )
        self.log("train/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(image))
        return loss

    def _losses(self, image: Tensor, planes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        ciphertext, mask = self.cipher(image, planes)
        damaged, lost = self._damaged(ciphertext, generator)
        losses = {"likelihood": self.likelihood(self.cipher.logits(damaged, planes, lost), image)}
        if self.weights.activity > 0 and len(image) > 1:
            half = max(2, len(image) // 2)  # half the batch tells enough, at half the cost
            other = self.cipher(image[:half].roll(1, 0), planes[:half])[1]
            losses["activity"] = self.activity(mask[:half], other)
        if self.weights.uniformity > 0:
            losses["uniformity"] = self.uniformity(ciphertext)
        if self.weights.autocorrelation > 0:
            losses["autocorrelation"] = self.autocorrelation(ciphertext)
        if self.weights.wrong_key > 0 and len(image) > 1:
            wrong = self.cipher.logits(damaged, planes.roll(1, 0), lost)
            losses["wrong_key"] = self.wrong_key(wrong, image)
        if self.adversary is not None:
            losses["adversary"] = self.adversary(ciphertext, image)
        return losses

    def _damaged(self, ciphertext: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Damage with gradients where a pixel survived; float ciphertext and float known-lost mask."""
        exact = ciphertext.detach().to(torch.uint8)
        damaged, lost = self.damage(exact, generator)
        return torch.where(damaged == exact, ciphertext, damaged.float()), lost.float()

    @torch.no_grad()
    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Log under `val/` what a user sees: exactness, wrong key, restoration, statistics."""
        self._log_figures("val", batch, batch_idx)

    @torch.no_grad()
    def test_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """The same figures under `test/`."""
        self._log_figures("test", batch, batch_idx)

    def _log_figures(self, stage: Literal["val", "test"], batch: ImageBatch, batch_idx: int) -> None:
        number = self.judged(stage, batch_idx)
        if number is None:
            return
        figures = self._figures(batch["image"], stage, number)
        self.log_dict(
            {f"{stage}/{name}": value for name, value in figures.items()},
            on_epoch=True, on_step=False, sync_dist=True, batch_size=self.judged_weight(len(batch["image"])),
        )  # fmt: skip

    def _figures(self, image: Tensor, stage: str, step: int) -> dict[str, Tensor]:
        planes, wrong = self._planes(image, stage, step), self._planes(image, f"{stage} wrong key", step)
        ciphertext = self.cipher.encrypt(image, planes)
        mean = image.float().mean((2, 3), keepdim=True).round().to(torch.uint8).expand_as(image)
        other = self.cipher.encrypt(image.flip(2, 3), planes)  # another picture, also in a batch of one
        figures = {
            "loss": self._restored_loss(image, planes, stage, step),
            "exact_fraction": (self.cipher.decrypt(ciphertext, planes) == image)
            .flatten(1)
            .all(1)
            .float()
            .mean(),
            "wrong_key_psnr_db": mean_psnr_db(self.cipher.decrypt(ciphertext, wrong), image),
            "mean_image_psnr_db": mean_psnr_db(mean, image),
            "entropy_bits": entropy_bits(ciphertext).mean(),
            "content_activity": content_activity(ciphertext - image, other - image.flip(2, 3)).mean(),
        }
        for name, damage in DAMAGES.items():
            damaged, lost = damage(ciphertext, self._generator(f"{stage} {name}", step))
            restored = self.cipher.restore(damaged, planes, lost)
            figures[f"restored_psnr_db/{name}"] = mean_psnr_db(restored, image)
        return {name: value.float() for name, value in figures.items()}

    def _restored_loss(self, image: Tensor, planes: Tensor, stage: str, step: int) -> Tensor:
        flat, keys = fold_channels(image).unsqueeze(1).float(), fold_channels(planes).float()
        with torch.autocast(self.device.type, enabled=False):
            damaged, lost = self._damaged(self.cipher(flat, keys)[0], self._generator(f"{stage} loss", step))
            loss: Tensor = self.likelihood(self.cipher.logits(damaged, keys, lost), flat)
        return loss

    @torch.no_grad()
    def panel(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Pictures to look at; see `encdl.panels.cipher_columns`."""
        image = batch["image"]
        planes, wrong = self._planes(image, "panel", 0), self._planes(image, "panel wrong key", 0)
        return cipher_columns(self.cipher, image, planes, wrong, self._generator("panel", 0))
