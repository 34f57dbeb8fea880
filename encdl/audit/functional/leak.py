"""What the best decoder makes of a reader's numbers, measured on its data set and kept in its checkpoint."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encdl import readers
from encdl.audit.functional import decoders, prior
from encdl.audit.functional.plan import Plan
from encdl.audit.functional.resident import SPLITS, resident
from encdl.audit.functional.training import Budget
from encdl.readers.functional import FunctionalStem
from encdl.readers.functional_files import functional_stem
from encdl.utils import torch_files
from encdl.utils.atomic import write_bytes
from encdl.utils.errors import UsageError


def measure(plan: Plan, data_dir: str, checkpoint: Path, device: str) -> dict[str, Any]:
    """Attack a reader's map with every decoder of the study.

    Args:
        plan: Says which data set, and with what budget.
        data_dir: The data set's folder.
        checkpoint: Of the reader.
        device: Where to compute.

    Raises:
        WeightsError: The checkpoint is of another kind.
        UsageError: The reader takes images of another size than the data set's.
    """
    source = plan.data(data_dir)
    stem, spec = functional_stem(readers.load(checkpoint, device)), source.spec
    if (stem.channels, *stem.size) != (spec.channels, spec.height, spec.width):
        raise UsageError(f"{checkpoint}: reads images of {stem.size[0]}x{stem.size[1]}, and {plan.file} has others")
    data = resident(source, device)
    parts = [data[split].images for split in SPLITS]
    test = parts[2][: plan.judged_images]
    drawn = guesses(stem, plan, parts, seed=0)
    network = prior.train_prior(stem.channels, plan.unet_of, parts[0], Budget(**plan.decoder_budget))
    drawn["prior"] = prior.draw(network, decoders.matrix(stem.map.frozen()), stem.noisy(test))
    found = {name: decoders.likeness(guess, test) for name, guess in drawn.items()}
    mean, thumbnail = found.pop("mean_image"), found.pop("thumbnail")
    best = max(found, key=lambda name: found[name][0])
    figures = {"psnr_db": found[best][0], "ssim": found[best][1], "mean_image_psnr_db": mean[0]}
    rounded = {name: round(value, 3) for name, value in {**figures, "thumbnail_psnr_db": thumbnail[0]}.items()}
    return {"decoder": best, "dataset": plan.file, **rounded}


def guesses(stem: FunctionalStem, plan: Plan, parts: Sequence[Tensor], seed: int) -> dict[str, Tensor]:
    """What each decoder rebuilds of a frozen map's numbers, by name: float32 levels of the first test images.

    Args:
        stem: Whose map is attacked.
        plan: Says with what budget, and of how many images.
        parts: uint8 images for training, validation and testing.
        seed: Of the networks.
    """
    stem.eval().requires_grad_(False)
    train, val, test = parts
    test = test[: plan.judged_images]
    linear = decoders.ridge(stem.seen, train, val, test)
    found = {
        "mean_image": train.float().mean(0, keepdim=True).expand(test.shape),
        "thumbnail": decoders.thumbnail(stem.map.frozen().numbers, test),
        "ridge": linear,
    }
    budget = Budget(**plan.decoder_budget)
    for kind in ("residual", "unet"):
        found[kind] = decoders.network(kind, stem, plan.unet_of, (train, val, test), budget, seed)
    if stem.form == "layer":
        found["box_from_ridge"] = decoders.box_least_squares(stem, test, linear)
        found["box_from_unet"] = decoders.box_least_squares(stem, test, found["unet"])
    return found


def keep(leak: dict[str, Any], checkpoint: Path) -> None:
    """Write the figures into the checkpoint, which stays the same otherwise."""
    content = torch_files.read(checkpoint)
    content[readers.READER_KEY]["leak"] = leak
    stream = io.BytesIO()
    torch.save(content, stream)
    write_bytes(checkpoint, stream.getvalue(), force=True)
