"""How much of the image lies open at each stage of a trained reader: see `encdl.audit.attacks.leakage_probe`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from encdl.audit.attacks.leakage_probe import LinearProbe
from encdl.data.batch import ImageBatch
from encdl.readers import Reader
from encdl.training.tasks.views import Sight

MEAN_IMAGE = "mean_picture"
"""What the mean of the images scores that the probes learn from, all of one size: it needs no network."""

Rows = Callable[[ImageBatch, str, int], dict[str, Sight]]
"""Batch, purpose of its keys and number of the batch to what the reader is shown, by name of the row."""


@torch.no_grad()
def leakage(
    reader: Reader, rows: Rows, learn: Iterable[ImageBatch], judge: Iterable[ImageBatch]
) -> dict[str, dict[str, float]]:
    """PSNR in dB of the images that linear probes read off the stem and each stage of the backbone.

    Args:
        reader: In evaluation mode.
        rows: What the reader is shown.
        learn: Batches that the probes learn from.
        judge: Batches that they are judged on.

    Returns:
        By row, then by stage.
    """
    example = torch.zeros(1, reader.stem.width, 64, 64, device=reader.stem.norm.weight.device)
    stages = {"stem": reader.stem, **reader.backbone.stages(example)}
    probes: dict[str, dict[str, LinearProbe]] = {}
    for purpose, batches in (("learn", learn), ("judge", judge)):
        for number, batch in enumerate(batches):
            for row, sight in rows(batch, f"probe {purpose}", number).items():
                with _watched(stages) as features:
                    reader(sight.picture, sight.mask)
                # One vector of nothing an image: the probe has only its constants, one a pixel.
                features[MEAN_IMAGE] = torch.zeros_like(batch["image"][:, :1, :1, :1], dtype=torch.float)
                for stage, value in features.items():
                    probe = probes.setdefault(row, {}).setdefault(stage, LinearProbe())
                    (probe.learn if purpose == "learn" else probe.judge)(value, batch["image"])
    return {row: {stage: probe.psnr_db for stage, probe in found.items()} for row, found in probes.items()}


@contextmanager
def _watched(stages: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """A dictionary that the stages' results come into while they run."""
    features: dict[str, Tensor] = {}

    def keep(stage: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, inputs, result: features.__setitem__(stage, result)

    handles = [module.register_forward_hook(keep(stage)) for stage, module in stages.items()]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()
