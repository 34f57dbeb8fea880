"""The main figure of a test for each image or volume, and its interval over patients, or images if none are known."""

from __future__ import annotations

import math
from typing import Any

from encdl.metrics.bootstrap import interval

UNITS = ("patients", "clusters", "volumes", "images")
"""What intervals are over: the first of these that is known; clusters are of images that are nearly alike."""


def by_unit(task: Any, data: Any) -> dict[str, Any]:
    """The main figure of the last test for each volume or image, and what each belongs to.

    Args:
        task: Of a reader, after a test.
        data: Its data set.

    Returns:
        `{UNIT: {"figure", "names", "values"}}`, `UNIT` one of `UNITS`; {} of a task that has no such figure.
    """
    groups = data.groups("test") if hasattr(data, "groups") else None
    figure, values = _values(task)
    if values is None:
        return {}
    unit = "images"
    if figure == "dice":
        samples = data.samples("test")
        unit = "volumes" if any("volume" in sample for sample in samples) else unit
        if groups:
            volumes = [sample.get("volume", number) for number, sample in enumerate(samples)]
            groups = [name for _, name in sorted(dict(zip(volumes, groups, strict=True)).items())]
    if groups and len(groups) == len(values):
        return {getattr(data, "grouping", UNITS[0]): {"figure": figure, "names": groups, "values": values.tolist()}}
    return {unit: {"figure": figure, "names": [*map(str, range(len(values)))], "values": values.tolist()}}


def told_interval(task: Any, data: Any) -> tuple[str, str] | None:
    """The main figure of the last test with its 95 % interval, in words; None of a task that has none."""
    for unit, known in by_unit(task, data).items():
        pairs = zip(known["names"], known["values"], strict=True)
        judged = [(name, value) for name, value in pairs if not math.isnan(value)]  # NaN: no such class
        if judged:
            names, values = zip(*judged, strict=True)
            found = interval(values, names)
            ends = "" if found.low is None else f" ({found.low:.3f} to {found.high:.3f}, 95 % by bootstrap)"
            return f"{known['figure']} over {len(set(names))} {unit}", f"{found.mean:.3f}{ends}"
    return None


def _values(task: Any) -> tuple[str, Any]:
    if hasattr(task, "dice_by_volume"):
        return "dice", task.dice_by_volume.nanmean(1)
    return "accuracy", getattr(task, "right", None)
