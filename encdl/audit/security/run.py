"""An audit from beginning to end: its parts, each kept as soon as it is known."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from encdl.audit.security.measures import Part, measure, parts
from encdl.audit.security.request import Order
from encdl.utils.atomic import write_bytes

Progress = Callable[[str], None]

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
        jobs: Processes that measure at a time; 1 measures here.
        progress: Told what has been done.

    Returns:
        The figures, by `KIND/NAME` of the part.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = order.digest()
    wanted = parts(order)
    found = {part: known for part in wanted if (known := _known(folder / part.file, digest)) is not None}
    if found:
        progress(f"{len(found)} of {len(wanted)} parts are there already")
    missing = [part for part in wanted if part not in found]
    for part, figures, took_s in _measured(order, missing, jobs):
        found[part] = figures
        kept = json.dumps({"digest": digest, "took_s": round(took_s, 2), "figures": figures})
        write_bytes(folder / part.file, kept.encode(), force=True)
        progress(f"[{len(found)}/{len(wanted)}] {part.kind} {part.name} ({took_s:.1f} s)")
    return {f"{part.kind}/{part.name}": found[part] for part in wanted}


def _measured(order: Order, missing: list[Part], jobs: int) -> Iterator[tuple[Part, dict[str, Any], float]]:
    if jobs == 1 or len(missing) < 2:
        for part in missing:
            yield part, *_timed(order, part)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    with ProcessPoolExecutor(min(jobs, len(missing)), get_context("spawn")) as pool:
        # What time is measured of goes last and alone.
        for timed in (False, True):
            running: dict[Future[tuple[dict[str, Any], float]], Part] = {
                pool.submit(_timed, order, part): part
                for part in sorted(missing, key=_rank)
                if (part.kind == "timing") is timed
            }
            try:
                for done in as_completed(running):
                    yield running[done], *done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _rank(part: Part) -> int:
    """Long parts start first, so that none is left over in the end."""
    attack = part.name.partition("/")[0]
    return LONGEST.index(attack) if attack in LONGEST else len(LONGEST)


def _timed(order: Order, part: Part) -> tuple[dict[str, Any], float]:
    started = time.monotonic()
    figures = measure(order, part)
    return figures, time.monotonic() - started


def _known(file: Path, digest: str) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("digest") != digest:
        return None
    known: dict[str, Any] | None = content.get("figures")
    return known
