"""Result records: figures with everything that is needed to make them again. Written by commands, never by hand."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from encdl.utils import compiled
from encdl.utils.atomic import write_bytes

LIBRARIES = (
    "encdl",
    "torch",
    "lightning",
    "torchmetrics",
    "monai",
    "albumentations",
    "numpy",
    "scipy",
    "opencv-python-headless",
    "scikit-image",
    "nilearn",
    "mlflow",
)


PLACES = ("data_dir",)
"""Settings that say where something lies; data sets are told by their name and digest."""


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (0 for one value) and the values themselves; infinities become None."""
    finite = all(math.isfinite(value) for value in values)
    return {
        "mean": statistics.fmean(values) if finite else None,
        "std": (statistics.stdev(values) if len(values) > 1 else 0.0) if finite else None,
        "values": [value if math.isfinite(value) else None for value in values],
    }


def commit() -> str:
    """The commit of the source that runs, with `+changes` if the package differs from it.

    Where the source is no git checkout (a container image, a copy on a cluster), what the environment variable
    ENCDL_COMMIT says, or `unknown`.
    """
    folder = Path(__file__).parents[1]

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(folder))
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("ENCDL_COMMIT", "unknown")


def versions() -> dict[str, str]:
    """Python's version and those of the libraries that are installed, and whether EncDL's compiled code is."""
    found = {"python": platform.python_version(), "compiled": "yes" if compiled.built() else "no"}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def device_name(device: str) -> str:
    """Name of the device in words."""
    import torch  # noqa: PLC0415

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def record(
    name: str,
    task: str,
    *,
    config: str | Mapping[str, Any] | None,
    dataset: str,
    seeds: Sequence[int],
    metrics: Mapping[str, Any],
    wall_s: float,
    device: str,
    **more: Any,
) -> dict[str, Any]:
    """A result record.

    Args:
        name: What the result is called; the file's name without its ending.
        task: What was done ("encrypt", "evaluate", …).
        config: The settings that anyone can run again: the path of their file, or themselves.
        dataset: What it was measured on.
        seeds: The seeds that the figures are over.
        metrics: The figures.
        wall_s: Seconds that it took.
        device: "cpu", "cuda", …; the record says it in words.
        more: Further fields.
    """
    fields = {
        "name": name,
        "task": task,
        "config": config,
        "dataset": dataset,
        "seeds": list(seeds),
        "metrics": dict(metrics),
        "wall_s": round(wall_s, 1),
        "device": device_name(device),
        "versions": versions(),
        "commit": commit(),
        "date": now(),
        **more,
    }
    found: dict[str, Any] = without_places(fields)
    return found


def without_places(value: Any) -> Any:
    """Fields of a record, with None for the settings `PLACES`, however deep: where data lie is no result."""
    if isinstance(value, Mapping):
        return {name: None if name in PLACES else without_places(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(each) for each in value]
    return value


def rows_of_numbers(text: str) -> str:
    """Indented JSON with each list of numbers, names or other plain values in one line."""
    # No text holds a raw line break, so that what begins with a bracket and one is a list.
    plain = re.compile(r"\[\n([^][{}]*)\]")
    return plain.sub(lambda found: f"[{' '.join(line.strip() for line in found[1].strip().splitlines())}]", text)


def write(path: str | Path, content: Mapping[str, Any], force: bool = False) -> None:
    """Write a record as JSON, whole or not at all.

    Raises:
        OutputExistsError: The file is there and `force` is not set.
    """
    text = rows_of_numbers(json.dumps(content, indent=2, allow_nan=False)) + "\n"
    write_bytes(path, text.encode(), force=force)
