"""Training of a cipher: `EncryptTask`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from encdl.ciphers.base import NOISY, Cipher, KeyedMaskCipher
from encdl.ciphers.channel import stored
from encdl.ciphers.damage import DAMAGES
from encdl.ciphers.losses import (
    LEVEL_LOSSES,
    AdversaryLoss,
    AutocorrelationLoss,
    ContentActivityLoss,
    UniformityLoss,
    WrongKeyLoss,
)
from encdl.ciphers.nn.decryption import DecryptionNetwork, Repaired
from encdl.ciphers.nn.phases import fold_channels
from encdl.ciphers.weights import load
from encdl.data.batch import ImageBatch
from encdl.keys.planes import PlaneSpec
from encdl.metrics.quality import content_activity, mean_psnr_db
from encdl.metrics.statistics import entropy_bits
from encdl.training.panels import cipher_columns
from encdl.training.tasks.base import CipherTask, Stage
from encdl.training.tasks.key_planes import generator_on
from encdl.training.tasks.random_damage import RandomDamage
from encdl.utils.errors import UsageError

FAR = 48
"""Levels that noise never moves a pixel by, unless it wraps at 256."""
FEW_HITS = "salt_pepper_1pct"
"""The damage after which it is counted how many pixels that were not hit stay as they are."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; 0 leaves one out.

    The first three train the decryption network. The others shape masks, so they act on ciphers whose masks are trained
    (`coupled`, `thesis`) and are left out where the mask follows from the key alone.

    Attributes:
        level: The loss of levels that the task's setting `loss` names, as `LevelLoss.by_image` puts it.
        replacement: The same loss of what would replace the pixels that say nothing, averaged over these: lost or hit
            ones, and those that noise wrapped around.
        hit: Binary cross-entropy of the pixels believed to be hit.
        mixture: Binary cross-entropy of the pixels that are replaced, against those that say nothing: early in
            training, replacements are so bad that none would ever be used again.
        activity: `encdl.ciphers.losses.ContentActivityLoss`.
        uniformity: `encdl.ciphers.losses.UniformityLoss`.
        autocorrelation: `encdl.ciphers.losses.AutocorrelationLoss`.
        adversary: `encdl.ciphers.losses.AdversaryLoss`.
        wrong_key: `encdl.ciphers.losses.WrongKeyLoss`.
    """

    level: float = 1.0
    replacement: float = 1.0
    hit: float = 1.0
    mixture: float = 1.0
    activity: float = 0.0
    uniformity: float = 0.0
    autocorrelation: float = 0.0
    adversary: float = 0.0
    wrong_key: float = 0.0


class EncryptTask(CipherTask):
    """Trains a cipher on images of any data set, under fresh keys for every image and step.

    Where the mask follows from the key alone (`agile`, `keystream`) there is only the decryption network to train.
    Under eight key planes that never repeat, such a mask is uniform whatever the key (`encdl.ciphers.agile`): training
    draws it as such instead of making key planes, at a hundredth of the time.

    Args:
        cipher: What to train.
        planes: Map and expansion of the training keys.
        loss: Of the levels: `encdl.ciphers.losses.LEVEL_LOSSES`.
        emphasis: How much badly damaged images outweigh the others in it: `LevelLoss.by_image`.
        loss_weights: Weights of the losses.
        damage: The damage that the decryption network learns to undo.
        activity_target: Content activity wanted over all pixels, 0..1.
        adversary_strength: Scale of the reversed gradient from the attacker network to the cipher.
        learning_rate: Peak of the one-cycle schedule (Smith and Topin 2019, arXiv:1708.07120).
        warm_up: Share of the steps in which the learning rate rises to it.
        weight_decay: Of AdamW.
        precision: What the decryption network's convolutions are trained in: `32`, or `bf16` on a GPU. Ciphertexts do
            not depend on it, nor does what the network computes after training.
        compile: Train the decryption network by `DecryptionNetwork.compile_training`, if on a GPU.
        start: Weights to go on from, of the same cipher in the same size, as `encdl.ciphers.weights.load` takes them;
            `None`: those that the cipher has.
        seed: Fixes training keys and damage; the images are fixed by the data module's seed, the first weights by
            `seed_everything`.
    """

    def __init__(
        self,
        cipher: Cipher,
        planes: PlaneSpec = PlaneSpec(),  # noqa: B008
        loss: Literal["likelihood", "l1", "mse", "charbonnier"] = "charbonnier",
        emphasis: float = 0.5,
        loss_weights: LossWeights = LossWeights(),
        damage: RandomDamage = RandomDamage(),  # noqa: B008
        activity_target: float = 0.6,
        adversary_strength: float = 0.1,
        learning_rate: float = 2e-3,
        warm_up: float = 0.3,
        weight_decay: float = 0.0,
        precision: Literal["32", "bf16"] = "32",
        compile: bool = False,
        start: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(cipher, planes, learning_rate, weight_decay=weight_decay, seed=seed)
        if not 0 < emphasis <= 2:
            raise UsageError(f"model.emphasis must be above 0 and at most 2, got {emphasis}")
        if not 0 < warm_up < 1:
            raise UsageError(f"model.warm_up must be between 0 and 1, got {warm_up}")
        if start is not None:
            _continue_from(cipher, start)
            self.hparams["start"] = None  # a checkpoint has the weights itself
        self.loss_weights, self.damage = loss_weights, damage
        self.level, self.emphasis = LEVEL_LOSSES[loss](), emphasis
        self.activity = ContentActivityLoss(activity_target)
        self.uniformity = UniformityLoss()
        self.autocorrelation = AutocorrelationLoss()
        self.wrong_key = WrongKeyLoss()
        trained_masks = not cipher.keyed_mask
        self.adversary = AdversaryLoss(adversary_strength) if trained_masks and loss_weights.adversary > 0 else None
        self.warm_up, self._compile = warm_up, compile
        for network in self._decryption_networks():
            network.trains_in_bfloat16 = precision == "bf16"

    def _decryption_networks(self) -> list[DecryptionNetwork]:
        return [module for module in self.cipher.modules() if isinstance(module, DecryptionNetwork)]

    def on_fit_start(self) -> None:
        """Compile, now that the device is known: on a CPU it would not pay.

        Raises:
            UsageError: The trainer has a precision, which would not act here.
        """
        if self.trainer.precision != "32-true":
            raise UsageError(
                f"trainer.precision {self.trainer.precision} does not act on a cipher: set model.precision"
            )
        if self._compile and self.device.type == "cuda":
            for network in self._decryption_networks():
                network.compile_training()

    def training_step(self, batch: ImageBatch, batch_idx: int) -> Tensor:
        """One step: encrypt under fresh keys, damage, restore; the sum of the weighted losses."""
        image, step = batch["image"], self.training_draws
        with torch.autocast(self.device.type, enabled=False):
            losses = self._losses(image, step)
        loss = self._sum(losses)
        # A value is brought to the CPU only where it is logged: waiting for it at each step would idle a GPU.
        told = {f"train/{name}": self.over_ranks(value) for name, value in losses.items()}
        self.log_dict(told, batch_size=len(image))
        self.log("train/loss", self.over_ranks(loss), prog_bar=True, batch_size=len(image))
        return loss

    def _losses(self, image: Tensor, step: int) -> dict[str, Tensor]:
        if isinstance(self.cipher, KeyedMaskCipher):
            return self._decryption_losses(self.cipher, image, "train", step)
        return self._cipher_losses(image, "train", step)

    def _sum(self, losses: dict[str, Tensor]) -> Tensor:
        return torch.stack([getattr(self.loss_weights, name) * value for name, value in losses.items()]).sum()

    def _decryption_losses(self, cipher: KeyedMaskCipher, image: Tensor, purpose: str, step: int) -> dict[str, Tensor]:
        """Of a cipher whose mask follows from the key alone: damage of the ciphertext is damage of the image."""
        generator = self._generator(purpose, step)
        mask = self._key_mask(image, purpose, step, generator)
        damaged, lost = self.damage(image + mask, generator)  # uint8 wraps at 256 by itself
        decrypted = fold_channels(damaged - mask).unsqueeze(1)
        lost = fold_channels(lost).unsqueeze(1)
        found = cipher.decryption(decrypted, lost)
        return self._repair_losses(found, decrypted, lost, fold_channels(image).unsqueeze(1))

    def _key_mask(self, image: Tensor, purpose: str, step: int, generator: torch.Generator) -> Tensor:
        """Masks of fresh keys, uint8 of the image's shape."""
        if self.planes.count == 8 and self.planes.expansion == "full":
            return self._uniform_bytes(image, generator)
        return self.cipher.field(image, self._planes(image, purpose, step))

    def _key_planes(self, image: Tensor, purpose: str, step: int) -> Tensor:
        """Key planes (N, 1, H, W) of fresh keys; planes that never repeat are drawn as the uniform bits they are."""
        if self.planes.expansion != "full":
            return fold_channels(self._planes(image, purpose, step)).unsqueeze(1)
        drawn = self._uniform_bytes(image, self._generator(f"{purpose} planes", step))
        return fold_channels(drawn >> 8 - self.planes.count).unsqueeze(1)

    def _uniform_bytes(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Drawn where the image is, from a seed that the generator draws."""
        source = generator_on(image.device, generator)
        return torch.randint(0, 256, image.shape, generator=source, device=image.device, dtype=torch.uint8)

    def _repair_losses(
        self, found: Repaired | Tensor, decrypted: Tensor, lost: Tensor, image: Tensor
    ) -> dict[str, Tensor]:
        """Losses of a repair against the truth; the others are levels (N, 1, H, W), `lost` is bool."""
        exact = image.float()
        if isinstance(found, Tensor):
            return {"level": self.level.by_image(found, exact, self.emphasis)}
        wrong = (decrypted != image) | lost
        noisy = (wrong & ~lost).float().mean((1, 2, 3), keepdim=True) > NOISY
        off = (decrypted.float() - exact).abs()
        replaced = lost | torch.where(noisy, off > FAR, wrong)
        return {
            "level": self.level.by_image(found.level, exact, self.emphasis),
            "replacement": self.level(found.replacement, exact, replaced.float()) / self.level.near,
            "hit": F.binary_cross_entropy_with_logits(found.hit, wrong.float()),
            "mixture": F.binary_cross_entropy_with_logits(found.mixture, replaced.float()),
        }

    def _cipher_losses(self, batch: Tensor, purpose: str, step: int) -> dict[str, Tensor]:
        """Of a cipher whose encryption is trained too."""
        image = fold_channels(batch).unsqueeze(1).float()
        planes = self._key_planes(batch, purpose, step)
        ciphertext, mask = self.cipher(image, planes)
        damaged, lost = self._damaged(ciphertext, self._generator(purpose, step))
        losses = self._restoration(image, planes, damaged, lost)
        if self.loss_weights.activity > 0 and len(image) > 1:
            half = max(2, len(image) // 2)  # half the batch tells enough, at half the cost
            other = self.cipher(image[:half].roll(1, 0), planes[:half])[1]
            losses["activity"] = self.activity(mask[:half], other)
        if self.loss_weights.uniformity > 0:
            losses["uniformity"] = self.uniformity(ciphertext)
        if self.loss_weights.autocorrelation > 0:
            losses["autocorrelation"] = self.autocorrelation(ciphertext)
        if self.loss_weights.wrong_key > 0 and len(image) > 1:
            wrong = self.cipher.repair(damaged, planes.roll(1, 0), lost)
            level = wrong if isinstance(wrong, Tensor) else wrong.level
            losses["wrong_key"] = self.wrong_key(level, image)
        if self.adversary is not None:
            losses["adversary"] = self.adversary(ciphertext, image)
        return losses

    def _restoration_losses(self, batch: Tensor, purpose: str, step: int) -> dict[str, Tensor]:
        """The losses of damage alone; see `_cipher_losses`."""
        image = fold_channels(batch).unsqueeze(1).float()
        planes = self._key_planes(batch, purpose, step)
        damaged, lost = self._damaged(self.cipher(image, planes)[0], self._generator(purpose, step))
        return self._restoration(image, planes, damaged, lost)

    def _restoration(self, image: Tensor, planes: Tensor, damaged: Tensor, lost: Tensor) -> dict[str, Tensor]:
        found = self.cipher.repair(damaged, planes, lost)
        decrypted = self.cipher.decrypt(damaged.detach().to(torch.uint8), planes)
        return self._repair_losses(found, decrypted, lost.bool(), image)

    def _damaged(self, ciphertext: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Damage with gradients where a pixel survived; float ciphertext and float known-lost mask."""
        exact = ciphertext.detach().to(torch.uint8)
        damaged, lost = self.damage(exact, generator)
        return torch.where(damaged == exact, ciphertext, damaged.float()), lost.float()

    @torch.no_grad()
    def judge(self, stage: Stage, batch: ImageBatch, number: int) -> None:
        """Collect what a user sees: exactness, wrong key, restoration, statistics."""
        for name, value in self._figures(batch["image"], stage, number).items():
            self.figure(stage, name).update(value, len(batch["image"]))

    def _figures(self, image: Tensor, stage: str, step: int) -> dict[str, Tensor]:
        planes, wrong = self._planes(image, stage, step), self._planes(image, f"{stage} wrong key", step)
        ciphertext = self.cipher.encrypt(image, planes)
        mean = image.float().mean((2, 3), keepdim=True).round().to(torch.uint8).expand_as(image)
        figures = {
            "loss": self._judged_loss(image, stage, step),
            "exact_fraction": (self.cipher.decrypt(ciphertext, planes) == image).flatten(1).all(1).float().mean(),
            "wrong_key_psnr_db": mean_psnr_db(self.cipher.decrypt(ciphertext, wrong), image),
            "mean_image_psnr_db": mean_psnr_db(mean, image),
            "entropy_bits": entropy_bits(ciphertext).mean(),
        }
        if not self.cipher.keyed_mask:
            other = self.cipher.encrypt(image.flip(2, 3), planes)  # another image, also in a batch of one
            figures["content_activity"] = content_activity(ciphertext - image, other - image.flip(2, 3)).mean()
        for name, damage in DAMAGES.items():
            damaged, lost = stored(damage, ciphertext, self._generator(f"{stage} {name}", step))
            restored = self.cipher.restore(damaged, planes, lost)
            decrypted = self.cipher.decrypt(damaged, planes)
            figures[f"restored_psnr_db/{name}"] = mean_psnr_db(restored, image)
            figures[f"unrestored_psnr_db/{name}"] = mean_psnr_db(decrypted, image)
            if name == FEW_HITS and self.cipher.exact:
                unhit = decrypted == image
                changed = (unhit & (restored != image)).float().sum() / unhit.float().sum().clamp(min=1.0)
                figures["unhit_unchanged_fraction"] = 1.0 - changed
        return figures

    def _judged_loss(self, image: Tensor, stage: str, step: int) -> Tensor:
        """The loss of the decryption network, as in training."""
        with torch.autocast(self.device.type, enabled=False):
            if isinstance(self.cipher, KeyedMaskCipher):
                return self._sum(self._decryption_losses(self.cipher, image, f"{stage} loss", step))
            return self._sum(self._restoration_losses(image, f"{stage} loss", step))

    @torch.no_grad()
    def panel(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Images to look at; see `encdl.training.panels.cipher_columns`."""
        image = batch["image"]
        planes, wrong = self._planes(image, "panel", 0), self._planes(image, "panel wrong key", 0)
        return cipher_columns(self.cipher, image, planes, wrong, self._generator("panel", 0))


def _continue_from(cipher: Cipher, start: str) -> None:
    """Give a cipher the weights of a file.

    Raises:
        UsageError: They are of another cipher, or of another size.
    """
    found = load(start).cipher
    if (found.name, found.config()) != (cipher.name, cipher.config()):
        raise UsageError(
            f"{start}: weights of {found.name} {found.config()}: set model.cipher alike, or leave out model.start"
        )
    cipher.load_state_dict(found.state_dict())
