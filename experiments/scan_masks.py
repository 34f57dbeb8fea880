"""Masks of a reader of volumes, judged by SimpleITK where the scan lies: `python experiments/scan_masks.py R.ckpt`.

Writes experiments/results/masks-hippocampus.json. The test volumes of a Decathlon task are encrypted, and
`encdl predict` writes a mask of each: as they came, with their axes exchanged and turned, and resampled onto an
oblique grid of uneven spacing. SimpleITK, which has no code in common with EncDL, reads masks and labels, compares
origin, spacing and direction, and gives the Dice coefficients; those of `encdl.metrics` stand beside them.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
import torch

from encdl import readers
from encdl.cli import main as encdl
from encdl.data.decathlon_volumes import DecathlonVolumes
from encdl.metrics.segmentation import VolumeDice
from encdl.utils import records

ROOT = Path(__file__).parents[1]
ANGLES, SPACING = (0.3, -0.2, 0.25), (0.8, 1.1, 1.6)
"""Radians about each axis, and millimetres, of the oblique grid."""
Image = Any
"""SimpleITK has no types."""


def turned(image: Image, _: int) -> Image:
    """The same voxels in another order: no number changes."""
    return SimpleITK.Flip(SimpleITK.PermuteAxes(image, [2, 0, 1]), [True, False, True])


def oblique(image: Image, interpolation: int) -> Image:
    """Onto a turned grid of other voxels that holds the whole volume."""
    turn = SimpleITK.Euler3DTransform((0, 0, 0), *ANGLES)
    direction = np.array(turn.GetMatrix()).reshape(3, 3) @ np.array(image.GetDirection()).reshape(3, 3)
    ends = [(0, size - 1) for size in image.GetSize()]
    corners = [image.TransformIndexToPhysicalPoint(corner) for corner in itertools.product(*ends)]
    along = np.array(corners) @ direction
    grid = SimpleITK.ResampleImageFilter()
    grid.SetOutputDirection(direction.ravel().tolist())
    grid.SetOutputOrigin((direction @ along.min(0)).tolist())
    grid.SetOutputSpacing(SPACING)
    grid.SetSize([int(side) for side in np.ceil(np.ptp(along, axis=0) / SPACING) + 1])
    grid.SetInterpolator(interpolation)
    return grid.Execute(image)


VARIANTS: dict[str, Callable[[Image, int], Image]] = {
    "as_it_came": lambda image, _: image,
    "turned": turned,
    "oblique": oblique,
}


def apart(mask: Image, scan: Image) -> float:
    """The largest difference of origin, spacing and direction; infinite where the sizes differ."""
    if mask.GetSize() != scan.GetSize():
        return float("inf")
    names = ("GetOrigin", "GetSpacing", "GetDirection")
    return max(float(np.abs(np.subtract(getattr(mask, name)(), getattr(scan, name)())).max()) for name in names)


def judged(mask: Path, label: Path, classes: int) -> dict[str, Any]:
    """What SimpleITK says of a mask: Dice and millilitres of each class but the first; and our Dice."""
    found, true = (SimpleITK.ReadImage(str(path), SimpleITK.sitkUInt8) for path in (mask, label))
    overlap, shapes = SimpleITK.LabelOverlapMeasuresImageFilter(), SimpleITK.LabelShapeStatisticsImageFilter()
    # Where they lie is compared apart: the filter itself refuses images of grids that differ by more than 1e-6.
    far = apart(found, true)
    found.CopyInformation(true)
    overlap.Execute(true, found)
    shapes.Execute(found)
    own, arrays = VolumeDice(classes, "none"), [np.asarray(nibabel.load(path).dataobj) for path in (mask, label)]  # type: ignore[attr-defined]
    own.update(*(torch.from_numpy(array.astype(np.uint8))[None, None] for array in arrays))
    named = range(1, classes)
    return {
        "grids_differ": far,
        "dice": [overlap.GetDiceCoefficient(index) for index in named],
        "own_dice": own.compute().tolist(),
        "millilitres": [shapes.GetPhysicalSize(index) / 1000 if shapes.HasLabel(index) else 0.0 for index in named],
    }


def predicted(
    folder: Path, reader: Path, pairs: list[tuple[Path, Path]], variant: str, classes: int
) -> list[dict[str, Any]]:
    """Encrypt one variant of the volumes below a folder, predict, and judge every mask."""
    change = VARIANTS[variant]
    for name in ("scans", "labels"):
        (folder / name).mkdir(parents=True)
    for scan, label in pairs:
        image = change(SimpleITK.ReadImage(str(scan), SimpleITK.sitkFloat32), SimpleITK.sitkLinear)
        SimpleITK.WriteImage(image, str(folder / "scans" / scan.name))
        labels = change(SimpleITK.ReadImage(str(label), SimpleITK.sitkUInt8), SimpleITK.sitkNearestNeighbor)
        SimpleITK.WriteImage(labels, str(folder / "labels" / scan.name))
    key, safe, masks = (str(folder / name) for name in ("k.key", "safe", "masks"))
    words = [["keygen", key], ["encrypt", str(folder / "scans"), "--key", key, "-o", safe]]
    words += [["predict", safe, "--key", key, "--reader", str(reader), "-o", masks, "--device", "cpu"]]
    if any(encdl(each) for each in words):
        raise SystemExit(f"{variant}: a command failed")
    with Path(masks, "measures.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    found = []
    for scan, _ in pairs:
        [mask] = Path(masks).glob(f"{scan.name.partition('.')[0]}*.mask.nii.gz")
        one = judged(mask, folder / "labels" / scan.name, classes)
        told = [float(row["millilitres"]) for row in rows if mask.name.startswith(row["scan"] + ".")]
        one["measures_differ_ml"] = max(abs(a - b) for a, b in zip(told, filter(None, one["millilitres"]), strict=True))
        found.append(one)
    return found


def study(reader: Path, data: DecathlonVolumes, work: Path) -> dict[str, Any]:
    """The metrics of a record, by variant."""
    pairs, metrics = data.volumes["test"], {}
    for variant in VARIANTS:
        found = predicted(work / variant, reader, pairs, variant, len(data.classes))
        dice, own = (np.array([one[name] for one in found]) for name in ("dice", "own_dice"))
        classes = {f"dice_{name.lower()}": dice[:, index] for index, name in enumerate(data.classes[1:])}
        metrics[variant] = {
            **{name: records.summary(values.tolist()) for name, values in {"dice": dice.mean(1), **classes}.items()},
            "dice_differ": float(np.abs(dice - own).max()),
            "grids_differ": max(one["grids_differ"] for one in found),
            "measures_differ_ml": max(one["measures_differ_ml"] for one in found),
        }
    return metrics


def main() -> None:
    """Judge the masks, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("reader", type=Path, metavar="READER.ckpt")
    parser.add_argument("--data-dir", default="data", metavar="DIR", help="folder of the task (default: data)")
    parser.add_argument("--task", default="hippocampus", help="of the Decathlon's layout (default: hippocampus)")
    parser.add_argument("-o", "--output", type=Path, help="default: experiments/results/masks-TASK.json")
    args = parser.parse_args()
    start, data, loaded = time.monotonic(), DecathlonVolumes(args.task, args.data_dir), readers.load(args.reader)
    with tempfile.TemporaryDirectory() as work:
        metrics = study(args.reader.resolve(), data, Path(work))
    output = args.output or ROOT / "experiments" / "results" / f"masks-{args.task}.json"
    content = records.record(
        output.stem,
        "scan-masks",
        config={
            "reader": {"view": loaded.view, "network": getattr(loaded.reader.backbone, "network", "")},
            "oblique": {"angles_rad": ANGLES, "spacing_mm": SPACING},
        },
        dataset=f"{args.task} (DecathlonVolumes)",
        seeds=[0],
        metrics=metrics,
        wall_s=time.monotonic() - start,
        device="cpu",
        simpleitk=SimpleITK.Version_VersionString(),
    )
    records.write(output, content, force=True)
    print(json.dumps(metrics, indent=1))


if __name__ == "__main__":
    main()
