"""Short trainings of readers and decoders on data that lie in the device's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_auroc

from encdl.audit.functional.device_dataset import Resident
from encdl.data.base import Split
from encdl.metrics.segmentation import VolumeDice
from encdl.readers import Reader
from encdl.readers.functional import FunctionalStem
from encdl.training.device_augment import augmented
from encdl.training.tasks.segment import class_weights

JUDGED_AT_ONCE = 256
LOOKS = 6
"""How often validation looks at a reader, in the second half of its training."""


@dataclass(frozen=True)
class Budget:
    """The budget of a training, the same for every reader that is compared.

    Attributes:
        steps: Batches.
        batch: Images a batch.
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: Of AdamW.
        strength: Of augmentation; see `encdl.training.device_augment.augmented`.
        flip: Whether to mirror images.
        smoothing: Of the labels of classifiers.
        average: Share of the weights so far in the running mean that is kept instead of the last weights; 0 keeps none.
    """

    steps: int = 600
    batch: int = 96
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    strength: float = 1.0
    flip: bool = False
    smoothing: float = 0.05
    average: float = 0.0


def train_reader(
    reader: Reader,
    data: dict[Split, Resident],
    metric: str,
    budget: Budget,
    seed: int,
    teacher: Reader | None = None,
    distil: float = 0.0,
) -> float:
    """Train; leaves the reader as it was when it did best on validation images, and says how well.

    Args:
        reader: With a plain or a functional stem, on the data's device.
        data: By split.
        metric: `auroc`, `accuracy` or `dice`.
        budget: What it may spend.
        seed: Of order and augmentation.
        teacher: A reader of plaintext whose answers are a further target.
        distil: Their share of the loss, 0 to 1.
    """
    train, device = data["train"], data["train"].images.device
    optimiser, schedule = _optimiser(reader, budget)
    generator = torch.Generator().manual_seed(seed)
    weights = None
    if metric != "auroc":
        count = torch.bincount(train.targets.flatten()).float()
        weights = class_weights((count / count.sum()).view(-1, 1, 1))
    running = _running_mean(reader, budget.average) if budget.average else None
    judged = reader if running is None else cast(Reader, running.module)
    best, kept = -1.0, judged.state_dict()
    looks = {budget.steps - 1 - look * budget.steps // (2 * LOOKS) for look in range(LOOKS)}
    batches = train.batches(budget.batch, generator)
    for step in range(budget.steps):
        reader.train()
        images, targets = augmented(*next(batches), generator, budget.strength, budget.flip)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = reader(images).float()
            loss = task_loss(logits, targets, weights, budget.smoothing)
            if teacher is not None and distil:
                with torch.no_grad():
                    taught = teacher(images).float()
                loss = (1 - distil) * loss + distil * divergence(logits, taught)
            if isinstance(reader.stem, FunctionalStem):
                loss = loss + reader.stem.penalty(images)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if running is not None:
            running.update_parameters(reader)
        if step in looks and (found := judge(judged, data["val"], metric)) >= best:
            best, kept = found, {name: value.clone() for name, value in judged.state_dict().items()}
    reader.load_state_dict(kept)
    return best


def task_loss(logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Cross-entropy; of pixels with the soft Dice loss of the foreground (arXiv:1606.04797) added."""
    if logits.ndim == 2:
        return F.cross_entropy(logits, targets, weights, label_smoothing=smoothing)
    shares = logits.softmax(1)
    truth = F.one_hot(targets, logits.shape[1]).movedim(-1, 1)
    common, sizes = (shares * truth).sum((0, 2, 3)), (shares + truth).sum((0, 2, 3))
    dice = (2 * common / sizes.clamp(min=1e-6))[1:].mean()
    return F.cross_entropy(logits, targets, weights) + 1 - dice


def divergence(logits: Tensor, taught: Tensor, temperature: float = 2.0) -> Tensor:
    """How far the answers are from a teacher's (G. Hinton, O. Vinyals, J. Dean, arXiv:1503.02531)."""
    own, other = (each / temperature for each in (logits, taught))
    values = F.kl_div(own.log_softmax(1), other.softmax(1), reduction="none").sum(1)
    return values.mean() * temperature**2


def _running_mean(reader: Reader, decay: float) -> AveragedModel:
    """The exponential moving average of weights and statistics."""
    return AveragedModel(reader, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]


@torch.no_grad()
def judge(reader: Reader, split: Resident, metric: str) -> float:
    """The reader's figure over a split."""
    reader.eval()
    device = split.images.device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        answers = [reader(images).float() for images in torch.split(split.images, JUDGED_AT_ONCE)]
    return figure(answers, split, metric)


def figure(answers: Sequence[Tensor], split: Resident, metric: str) -> float:
    """The figure of a split's logits, which come in parts."""
    device = split.images.device
    classes = answers[0].shape[1]
    if metric == "dice":
        dice = VolumeDice(classes).to(device)
        found = torch.cat([each.argmax(1, keepdim=True) for each in answers])
        dice.update(found, split.targets[:, None], split.volumes)
        return float(dice.compute())
    logits = torch.cat(list(answers))
    if metric == "auroc":
        return float(multiclass_auroc(logits.softmax(1), split.targets, classes))
    return float(multiclass_accuracy(logits, split.targets, classes, average="micro"))


def fit_decoder(
    network: nn.Module, seen: Callable[[Tensor], Tensor], images: Tensor, held: Tensor, budget: Budget, seed: int
) -> None:
    """Train a network to rebuild images from what a host sees; leaves it as it was when held-out images came out best.

    Args:
        network: What is seen to levels -1/2 to 1/2.
        seen: Of levels (B, C, H, W).
        images: uint8, to learn from.
        held: uint8, to choose by.
        budget: What it may spend.
        seed: Of order and augmentation.
    """
    device, generator = images.device, torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), budget.learning_rate, weight_decay=budget.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, budget.learning_rate, total_steps=budget.steps)
    batches: Iterable[tuple[Tensor, Tensor]] = Resident(images, torch.zeros(len(images), device=device), None).batches(
        budget.batch, generator
    )
    looks = {budget.steps - 1 - look * budget.steps // (2 * LOOKS) for look in range(LOOKS)}
    best, kept = float("inf"), network.state_dict()
    for step, (drawn, targets) in zip(range(budget.steps), batches, strict=False):
        network.train()
        levels, _ = augmented(drawn, targets, generator, budget.strength / 2, budget.flip)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            with torch.no_grad():
                numbers = seen(levels)
            rebuilt = network(numbers)
        loss = F.mse_loss(rebuilt.float(), levels / 255.0 - 0.5)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step in looks:
            error = float(F.mse_loss(rebuilt_by(network, seen, held), held.float()))
            if error < best:
                best, kept = error, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(kept)


def _optimiser(
    network: nn.Module, budget: Budget
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW under a one-cycle schedule; convolutions in the layout that tensor cores take."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(
        network.parameters(), budget.learning_rate, weight_decay=budget.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, budget.learning_rate, total_steps=budget.steps)
    return optimiser, schedule


@torch.no_grad()
def rebuilt_by(network: nn.Module, seen: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The network's images, levels 0 to 255: float32 like `images`, uint8 (B, C, H, W)."""
    network.eval()
    device = images.device
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        parts = [network(seen(part)).float() for part in torch.split(images, JUDGED_AT_ONCE)]
    return ((torch.cat(parts) + 0.5) * 255.0).clamp(0, 255)
