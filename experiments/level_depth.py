"""Whether 256 levels are too few for readers of deep volumes: `python experiments/level_depth.py --data-dir DIR`.

Writes experiments/results/levels-hippocampus.json. The same network is trained from the same seeds on the volumes of a
Decathlon task twice: on bytes, as data modules and `encdl predict` make them of integers of any depth, and on the same
levels unrounded, as float32. The test volumes' Dice coefficients stand beside one another. Minutes of one core.
--levels 32 trains on as many levels alone, into levels-hippocampus-32.json: where volumes have few values of their own,
that is to them what 256 levels are to deeper ones.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import ResizeWithPadOrCrop
from torch import Tensor

from encdl.data.decathlon_volumes import DecathlonVolumes
from encdl.data.volumes import read_volume
from encdl.files.levels import Stored
from encdl.metrics.segmentation import VolumeDice
from encdl.utils import records

ROOT = Path(__file__).parents[1]
SIZE, BATCH, CHANNELS, RATE = (40, 56, 48), 2, (8, 16, 32, 64), 4e-3
ROWS = ("bytes", "unrounded")


def volumes(data: DecathlonVolumes, split: Any, most: int = 255) -> tuple[dict[str, Tensor], Tensor, list[int]]:
    """The volumes of a split at both depths, (N, 1, X, Y, Z) from 0 to 1, their masks, and their numbers of values."""
    fit, found, counts = ResizeWithPadOrCrop(SIZE), {row: [] for row in ROWS} | {"mask": []}, []
    for image, mask in data.volumes[split]:
        voxels, stored = read_volume(image).voxels, Stored.of(np.float32)
        levels = data.levels.unit(voxels, stored, data.levels.bounds(voxels, stored))
        counts.append(len(np.unique(voxels[(levels > 0) & (levels < 1)])))
        found["unrounded"].append(fit(levels))
        found["bytes"].append(fit(np.rint(most * levels) / np.float32(most)))
        found["mask"].append(fit(read_volume(mask).voxels))
    stacked = {
        name: torch.stack([torch.as_tensor(np.asarray(each)) for each in each_of]) for name, each_of in found.items()
    }
    return {row: stacked[row].float() for row in ROWS}, stacked["mask"].long(), counts


def trained(images: Tensor, masks: Tensor, classes: int, seed: int, steps: int) -> UNet:
    """The network after its training; a seed decides weights and order, whatever the images are."""
    torch.manual_seed(seed)
    network = UNet(3, 1, classes, CHANNELS, (2,) * (len(CHANNELS) - 1), num_res_units=2)
    loss, optimiser = DiceCELoss(to_onehot_y=True, softmax=True), torch.optim.AdamW(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randperm(len(images))[:BATCH]
        optimiser.zero_grad()
        loss(network(images[chosen]), masks[chosen]).backward()
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def dice(network: UNet, images: Tensor, masks: Tensor, classes: int) -> tuple[float, Tensor]:
    """The mean Dice coefficient over volumes and classes, and the masks that were found."""
    found = torch.cat([network(image[None]).argmax(1, keepdim=True) for image in images])
    metric = VolumeDice(classes)
    metric.update(found, masks)
    return float(metric.compute()), found


def study(data: DecathlonVolumes, seeds: range, steps: int) -> dict[str, Any]:
    """Train at both depths, and read the test volumes; the network of bytes reads unrounded levels, too."""
    classes = len(data.classes)
    images, masks, counts = volumes(data, "train")
    judged, truth, _ = volumes(data, "test")
    values: dict[str, list[float]] = {row: [] for row in (*ROWS, "bytes_then_unrounded", "changed_voxels")}
    for seed in seeds:
        networks = {row: trained(images[row], masks, classes, seed, steps) for row in ROWS}
        results = {row: dice(networks[row], judged[row], truth, classes) for row in ROWS}
        other = dice(networks["bytes"], judged["unrounded"], truth, classes)
        for row in ROWS:
            values[row].append(results[row][0])
        values["bytes_then_unrounded"].append(other[0])
        inside = (results["bytes"][1] > 0) | (other[1] > 0)
        values["changed_voxels"].append(float((results["bytes"][1] != other[1])[inside].float().mean()))
        print(f"seed {seed}: " + ", ".join(f"{name} {each[-1]:.4f}" for name, each in values.items()), flush=True)
    less = [one - other for one, other in zip(values["bytes"], values["unrounded"], strict=True)]
    return {
        **{name: records.summary(each) for name, each in values.items()},
        "less_unrounded": records.summary(less),
        "stored_values": records.summary([float(count) for count in counts]),
    }


def coarse(data: DecathlonVolumes, seeds: range, steps: int, levels: int) -> dict[str, Any]:
    """Train and judge at so many levels."""
    classes, values = len(data.classes), []
    (images, masks, _), (judged, truth, _) = (volumes(data, split, levels - 1) for split in ("train", "test"))
    for seed in seeds:
        network = trained(images["bytes"], masks, classes, seed, steps)
        values.append(dice(network, judged["bytes"], truth, classes)[0])
        print(f"seed {seed}: {values[-1]:.4f}", flush=True)
    return {"rounded": records.summary(values)}


def main() -> None:
    """Run the study, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", default="data", metavar="DIR", help="folder of the task (default: data)")
    parser.add_argument("--task", default="hippocampus", help="of the Decathlon's layout (default: hippocampus)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each depth (default: 3)")
    parser.add_argument("--steps", type=int, default=400, metavar="N", help="of each training (default: 400)")
    parser.add_argument("--levels", type=int, metavar="N", help="train on so many levels alone")
    parser.add_argument("-o", "--output", type=Path, help="default: experiments/results/levels-TASK.json")
    args = parser.parse_args()
    start, name = time.monotonic(), f"levels-{args.task}" + (f"-{args.levels}" if args.levels else "")
    output = args.output or ROOT / "experiments" / "results" / f"{name}.json"
    data, seeds = DecathlonVolumes(args.task, args.data_dir), range(args.seeds)
    metrics = coarse(data, seeds, args.steps, args.levels) if args.levels else study(data, seeds, args.steps)
    content = records.record(
        output.stem,
        "level-depth",
        config={"steps": args.steps, "batch": BATCH, "channels": CHANNELS, "learning_rate": RATE, "size": SIZE},
        dataset=f"{args.task} (DecathlonVolumes)",
        seeds=range(args.seeds),
        metrics=metrics,
        wall_s=time.monotonic() - start,
        device="cpu",
    )
    records.write(output, content, force=True)


if __name__ == "__main__":
    main()
