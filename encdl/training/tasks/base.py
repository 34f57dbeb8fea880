"""Base class of training tasks: fresh keys, AdamW under a one-cycle schedule, checkpoints that hold the cipher."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection

from encdl.ciphers.base import CIPHERS, Cipher
from encdl.ciphers.weights import CHECKPOINT_KEY
from encdl.data.batch import ImageBatch
from encdl.data.samplers import EvalSampler
from encdl.keys.planes import PlaneSpec
from encdl.training.tasks.hyper_parameters import save_settings
from encdl.training.tasks.key_planes import fresh_generator, fresh_planes
from encdl.utils import records
from encdl.utils.errors import UsageError

Stage: TypeAlias = Literal["val", "test"]


class CipherTask(LightningModule):
    """A task around a cipher: fresh keys from a seed, one-cycle learning rate, checkpoints that hold the cipher.

    Args:
        cipher: The cipher, trained or frozen.
        planes: Map and expansion of the training keys.
        learning_rate: Peak of the one-cycle schedule (Smith and Topin 2019, arXiv:1708.07120).
        weight_decay: Of AdamW.
        seed: Fixes training keys and damage; the images are the data module's.

    Raises:
        UsageError: The cipher takes another number of key planes, or is not registered.
    """

    warm_up = 0.3
    """Share of the steps in which the learning rate rises."""

    def __init__(self, cipher: Cipher, planes: PlaneSpec, learning_rate: float, weight_decay: float, seed: int) -> None:
        super().__init__()
        CIPHERS.check(type(cipher))
        save_settings(self)
        self.cipher = cipher
        self.figures = {stage: MetricCollection({}, compute_groups=False) for stage in ("val", "test")}
        self.planes, self.learning_rate, self.weight_decay, self.seed = (planes, learning_rate, weight_decay, seed)
        if cipher.planes != planes.count:
            raise UsageError(
                f"the cipher takes {cipher.planes} key planes, model.planes.count is {planes.count}: set both alike"
            )

    @property
    def training_draws(self) -> int:
        """Number of training batches before this one: no two of them share a key."""
        return self.trainer.fit_loop.epoch_loop.total_batch_idx

    def over_ranks(self, value: Tensor) -> Tensor:
        """A training step's value as it is logged: its mean over all processes, if the logger takes this step's at all.

        Only then need the processes wait for one another's. `log(sync_dist=...)` has no such choice: Lightning refuses
        another value of it than at the step before.
        """
        every = int(self.trainer.log_every_n_steps)  # type: ignore[attr-defined]  # it is set in its constructor
        if self.trainer.world_size == 1 or every <= 0 or (self.trainer.global_step + 1) % every:
            return value
        mean = self.trainer.strategy.reduce(value.detach().clone(), reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW under a one-cycle schedule over the whole run.

        Raises:
            UsageError: The run has no end that is known beforehand.
        """
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True)
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UsageError(
                "the learning rate is planned for the whole run: set trainer.max_steps or trainer.max_epochs"
            )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=max(int(steps), 2), pct_start=self.warm_up
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which cipher this is, so that `encdl.ciphers.weights.load` opens the checkpoint without this task."""
        training = {
            "steps": self.trainer.global_step,
            "commit": records.commit(),
            "versions": records.versions(),
            "device": records.device_name(str(self.device)),
            "date": records.now(),
        }
        cipher = {"cipher": self.cipher.name, "config": self.cipher.config(), "training": training}
        checkpoint[CHECKPOINT_KEY] = cipher

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Plan the rest of a resumed run by its present length, not by that of the run that stopped."""
        for schedule in checkpoint.get("lr_schedulers", []):
            for planned in ("total_steps", "_schedule_phases"):
                schedule.pop(planned, None)

    @abstractmethod
    def judge(self, stage: Stage, batch: ImageBatch, number: int) -> None:
        """Collect the figures of a validation or test batch, by `figure`; `number` fixes its keys and damage."""

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Collect the figures of a batch, to be logged under `val/`."""
        if (number := self.judged("val", batch_idx)) is not None:
            self.judge("val", batch, number)

    def test_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """The same under `test/`."""
        if (number := self.judged("test", batch_idx)) is not None:
            self.judge("test", batch, number)

    def judged(self, stage: Stage, batch_idx: int) -> int | None:
        """Number of a validation or test batch among those of all ranks; None for one that must not count.

        Some ranks see a batch again so that all of them see equally many: `encdl.data.samplers.EvalSampler`.
        """
        loader = self.trainer.val_dataloaders if stage == "val" else self.trainer.test_dataloaders
        sampler = getattr(loader, "sampler", None)
        if isinstance(sampler, EvalSampler):
            return sampler.number(batch_idx)
        return batch_idx * self.trainer.world_size + self.global_rank

    def figure(self, stage: str, name: str, make: Callable[[], Metric] = MeanMetric) -> Metric:
        """The metric of that name, of this epoch and over all ranks; made when it is first asked for."""
        known = self.figures[stage]
        if name not in known:
            known.add_metrics({name: make().to(self.device)})
        found: Metric = known[name]
        return found

    def computed(self, stage: str) -> dict[str, Tensor]:
        """The figures of an epoch that ends, by name."""
        values: dict[str, Tensor] = self.figures[stage].compute()
        self.figures[stage] = MetricCollection({}, compute_groups=False)
        return values

    def on_validation_epoch_end(self) -> None:
        """Log the figures as `val/FIGURE`."""
        self.log_dict({f"val/{name}": value for name, value in self.computed("val").items()}, sync_dist=True)

    def on_test_epoch_end(self) -> None:
        """The same under `test/`."""
        self.log_dict({f"test/{name}": value for name, value in self.computed("test").items()}, sync_dist=True)

    @property
    def _draw_rank(self) -> int:
        """The rank that a draw depends on: none where batches are numbered over all ranks."""
        judging = self._trainer is not None and self._trainer.evaluating
        return 0 if judging else self.global_rank

    def _planes(self, image: Tensor, purpose: str, step: int) -> Tensor:
        return fresh_planes(
            self.planes,
            image.shape,
            seed=self.seed,
            rank=self._draw_rank,
            purpose=purpose,
            step=step,
            device=image.device,
        )

    def _generator(self, purpose: str, step: int) -> torch.Generator:
        return fresh_generator(seed=self.seed, rank=self._draw_rank, purpose=purpose, step=step)
