"""The main figure of a test for each image or volume, and its interval over patients."""

from __future__ import annotations

import math
from typing import Any

from encdl.metrics.bootstrap import interval


def by_patient(task: Any, data: Any) -> dict[str, Any]:
    """The main figure of the last test for each volume or image, and the patient or cluster of each.

    Args:
        task: Of a reader, after a test.
        data: Its data set.

    Returns:
        `{"patients": {"figure", "names", "values"}}`; {} where patients are unknown.
    """
    groups = data.groups("test") if hasattr(data, "groups") else None
    figure, values = _values(task)
    if not groups or values is None:
        return {}
    if figure == "dice":
        volumes = [sample.get("volume", number) for number, sample in enumerate(data.samples("test"))]
        groups = [name for _, name in sorted(dict(zip(volumes, groups, strict=True)).items())]
    if len(values) != len(groups):
        return {}
    return {"patients": {"figure": figure, "names": groups, "values": values.tolist()}}


def told_interval(task: Any, data: Any) -> tuple[str, str] | None:
    """The main figure of the last test with its 95 % interval, in words; None of a task that has none."""
    figure, values = _values(task)
    if values is None:
        return None
    known = by_patient(task, data).get("patients")
    values = values.tolist() if known is None else known["values"]
    names = range(len(values)) if known is None else known["names"]
    judged = {number: name for number, name in enumerate(names) if not math.isnan(values[number])}  # NaN: no such class
    if not judged:
        return None
    found = interval([values[number] for number in judged], [*judged.values()])
    unit = "patients" if known is not None else "volumes or images" if figure == "dice" else "images"
    ends = "" if found.low is None else f" ({found.low:.3f} to {found.high:.3f}, 95 % by bootstrap)"
    return f"{figure} over {len(set(judged.values()))} {unit}", f"{found.mean:.3f}{ends}"


def _values(task: Any) -> tuple[str, Any]:
    if hasattr(task, "dice_by_volume"):
        return "dice", task.dice_by_volume.nanmean(1)
    return "accuracy", getattr(task, "right", None)
