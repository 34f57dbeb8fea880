"""The time that reading ciphertext takes beside the ways around it, in memory and from files, as a record."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from encdl.audit.studies import cost
from encdl.audit.studies.files import file_cost
from encdl.ciphers.weights import LoadedCipher, weights_id
from encdl.data.base import DataSpec
from encdl.training.tasks.read import ReadTask
from encdl.utils import records

CLASSES = ("one", "other")
TOLD = (
    "keyed_to_plain",
    "ciphertext_to_plain",
    "ciphertext_to_decrypt_then_infer",
    "ciphertext_to_decrypt_in_memory",
    "functional_to_plain",
)
"""Ratios that `table` has; the record has more."""


def measure(
    task: ReadTask, config: Path, work: Path, name: str, device: str, progress: Callable[[str], None]
) -> dict[str, Any]:
    """The record of a recipe's reader, untrained: random weights cost what trained ones do.

    Args:
        task: of the recipe.
        config: the recipe.
        work: folder where files are written, read and removed again, for the disk is timed too.
        name: of the record.
        device: where to compute.
        progress: is told what comes next.
    """
    started = time.monotonic()
    work.mkdir(parents=True, exist_ok=True)
    reader = task.new_reader(DataSpec(1, max(cost.SIZES), max(cost.SIZES), CLASSES))
    cipher = task.cipher.to(device).eval()
    loaded = LoadedCipher(cipher, weights_id(cipher), cipher.name)
    progress(f"timing a reader with {type(reader.backbone).__name__} on {records.device_name(device)}: in memory")
    in_memory = cost.cost(reader, cipher, task.planes, device, cost.SIZES, cost.batches(device))
    progress("from files")
    from_files = file_cost(reader, CLASSES, loaded, task.planes, work, cost.SIZES)
    return records.record(
        name,
        "reader-cost",
        config=str(config),
        dataset="uniform noise in memory, embedded MRI slices in files",
        seeds=[],
        metrics={"memory": in_memory, "files": from_files},
        wall_s=time.monotonic() - started,
        device=device,
        cipher=loaded.name,
        weights=loaded.id,
        planes=task.planes.to_dict(),
        reader=reader.config(),
    )


def table(metrics: dict[str, dict[str, dict[str, Any]]]) -> str:
    """A record's metrics as text, a line for each size and batch."""
    lines = []
    flat = {f"memory {name}": times for name, times in metrics["memory"].items()}
    flat |= {
        f"files {name} ({clock} time)": times
        for name, clocks in metrics["files"].items()
        for clock, times in clocks.items()
    }
    for name, times in flat.items():
        told = [f"{each.replace('_', ' ')} {times[each]:.2f}" for each in TOLD if each in times]
        lines.append(f"  {name}: {', '.join(told)}")
    return "\n".join(lines)
