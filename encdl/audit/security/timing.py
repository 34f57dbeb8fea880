"""How long encryption takes, and its parts, beside AES-256 in counter mode."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from encdl.audit.attacks.targets import Aes, CipherTarget, Target

REPEATS: Final = 5


def timing(targets: dict[str, Target], images: Tensor) -> dict[str, Any]:
    """Median milliseconds an image of each row, measured in turns, and of AES as the unit beside them.

    Args:
        targets: By name of the row.
        images: uint8 (B, C, H, W); the whole batch is encrypted at once.

    Returns:
        By row: `ms`, `to_aes` (ratio to AES in the same run), and for neural ciphers `planes_ms`, the part that making
        the key planes takes.
    """
    timed: dict[str, Target] = {**targets, "aes_256_ctr": Aes()}
    steps: dict[str, Callable[[], Tensor]] = {}
    for row, target in timed.items():
        steps[row] = lambda target=target: target.encrypt(images)  # type: ignore[misc]
        if isinstance(target, CipherTarget):
            steps[f"{row}/planes"] = lambda target=target: target.planes(images)  # type: ignore[misc]
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(REPEATS + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if images.is_cuda:
                torch.cuda.synchronize()
            taken[name].append(1000 * (time.perf_counter() - started) / len(images))
    median = {name: statistics.median(values[1:]) for name, values in taken.items()}  # the first call warms up
    found: dict[str, Any] = {}
    for row in timed:
        found[row] = {"ms": median[row], "to_aes": median[row] / median["aes_256_ctr"]}
        if f"{row}/planes" in median:
            found[row]["planes_ms"] = median[f"{row}/planes"]
    return found
