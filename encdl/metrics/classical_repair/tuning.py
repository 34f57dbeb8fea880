"""The parameters of the repairs, chosen by grid search on validation images, never on those that are judged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import cv2
import numpy as np

from encdl.metrics.classical_repair.impulses import Image, Mask
from encdl.metrics.classical_repair.methods import REPAIRS, Kind, Parameters, repaired

PSNR_CAP_DB = 60.0
"""Of one image: an image repaired without an error counts as this."""


@dataclass(frozen=True)
class Case:
    """A damaged image, decrypted, and what it was.

    Attributes:
        plain: uint8 (..., H, W).
        damaged: uint8, same shape: decrypted, not repaired.
        lost: bool, same shape: pixels known to be lost.
        kind: Of the damage.
        noise: Deviation of the noise in levels, for damage of that kind.
    """

    plain: Image
    damaged: Image
    lost: Mask
    kind: Kind
    noise: float = 0.0


@dataclass(frozen=True)
class Choice:
    """The parameters that a search chose, and their mean PSNR in dB on the validation images."""

    parameters: dict[str, Any]
    psnr_db: float


def psnr_db(plain: Image, other: Image) -> float:
    """PSNR in dB, peak 255, `PSNR_CAP_DB` at the most."""
    error = float(np.mean((plain.astype(np.float64) - other) ** 2))
    return PSNR_CAP_DB if error == 0 else min(PSNR_CAP_DB, float(10 * np.log10(255**2 / error)))


def score(case: Case, name: str, parameters: Parameters) -> float:
    """PSNR in dB of a case after a repair."""
    return psnr_db(case.plain, repaired(case.kind, name, case.damaged, case.lost, case.noise, parameters))


def tune(cases: Sequence[Case], name: str, run: Callable[..., Iterator[float]] = map) -> Choice:
    """Choose a repair's parameters.

    Args:
        cases: Validation images with one kind of damage.
        name: Of the repair.
        run: What runs `score`: `map`, or that of a pool.

    Returns:
        The best point of the grid; the first of several.
    """
    choices = REPAIRS[cases[0].kind][name].choices()
    work = [(case, name, choice) for choice in choices for case in cases]
    scores = np.array(list(run(score, *zip(*work, strict=True)))).reshape(len(choices), len(cases)).mean(1)
    best = int(scores.argmax())
    return Choice(choices[best], float(scores[best]))


@contextmanager
def pool(jobs: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """A `map` over `jobs` processes, each with one thread; in this process if `jobs` is 1."""
    if jobs == 1:
        yield map
        return
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the processes as they import NumPy
    try:
        with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)) as executor:
            yield _chunked(executor, jobs)
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def _chunked(executor: Executor, jobs: int) -> Callable[..., Iterator[Any]]:
    def run(function: Callable[..., Any], *columns: Sequence[Any]) -> Iterator[Any]:
        # A handful of chunks a process: few enough to be cheap to send, enough that none waits long for another.
        return executor.map(function, *columns, chunksize=max(1, len(columns[0]) // (8 * jobs)))

    return run
