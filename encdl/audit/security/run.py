"""An audit from beginning to end: its parts, each kept as soon as it is known."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, Final

import torch

from encdl.audit.cached_jobs import as_they_end, run_missing, share_cores
from encdl.audit.security.measures import Part, measure, parts
from encdl.audit.security.request import Order
from encdl.utils.atomic import write_bytes

Progress = Callable[[str], None]
Timed = tuple[dict[str, Any], float]
"""The figures of a part, and the seconds that they took."""

LONGEST: Final = (
    "known_plaintext_decoder",
    "ciphertext_only_decoder",
    "gan_inversion",
    "differential_distinguisher",
    "equality_distinguisher",
    "lane_recovery",
)
"""Attacks whose parts take longest, in this order."""


def run(order: Order, folder: Path, jobs: int, progress: Progress) -> dict[str, dict[str, Any]]:
    """Measure all parts that the folder does not have.

    Args:
        order: What is audited, and how.
        folder: Keeps each part's figures as soon as they are known.
        jobs: Processes that measure at a time, spread over the GPUs; 1 measures here.
        progress: Told what has been done.

    Returns:
        The figures, by `KIND/NAME` of the part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = order.digest()

    def compute(missing: list[Part]) -> Iterator[tuple[Part, Timed]]:
        for part, (figures, took_s) in _measured(order, missing, jobs):
            kept = json.dumps({"digest": digest, "took_s": round(took_s, 2), "figures": figures})
            write_bytes(folder / part.file, kept.encode(), force=True)
            yield part, (figures, took_s)

    found = run_missing(
        parts(order),
        lambda part: _known(folder / part.file, digest),
        compute,
        "parts",
        lambda part, found: f"{part.kind} {part.name} ({found[1]:.1f} s)",
        progress,
    )
    return {f"{part.kind}/{part.name}": figures for part, (figures, _) in found.items()}


def _measured(order: Order, missing: list[Part], jobs: int) -> Iterator[tuple[Part, Timed]]:
    if jobs == 1 or len(missing) < 2:
        for part in missing:
            yield part, _timed(order, part)
        return
    share_cores(jobs)
    context = get_context("spawn")
    begin = (_take_gpu, (context.Value("i", 0),)) if order.device.startswith("cuda") else (None, ())
    with ProcessPoolExecutor(min(jobs, len(missing)), context, *begin) as pool:
        # What time is measured of goes last and alone.
        for timed in (False, True):
            wanted = [part for part in sorted(missing, key=_rank) if (part.kind == "timing") is timed]
            yield from as_they_end(pool, {pool.submit(_timed, order, part): part for part in wanted})


def _take_gpu(taken: Synchronized[int]) -> None:
    """Let this process compute on the next of the GPUs, which it calls "cuda"."""
    with taken.get_lock():
        torch.cuda.set_device(taken.value % torch.cuda.device_count())
        taken.value += 1


def _rank(part: Part) -> int:
    """Long parts start first, so that none is left over in the end."""
    attack = part.name.partition("/")[0]
    return LONGEST.index(attack) if attack in LONGEST else len(LONGEST)


def _timed(order: Order, part: Part) -> Timed:
    started = time.monotonic()
    figures = measure(order, part)
    return figures, time.monotonic() - started


def _known(file: Path, digest: str) -> Timed | None:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("digest") != digest:
        return None
    return None if content.get("figures") is None else (content["figures"], 0.0)
