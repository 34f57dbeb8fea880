"""Optuna's study of a sweep: what to try next, what came of it; kept in a file, so that a stopped sweep goes on."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import optuna
from optuna import Study
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from encdl.cluster.sweep.space import Space, is_grid
from encdl.utils.errors import UsageError

SEARCHERS = ("grid", "random", "tpe")
JOURNAL, STUDY = "optuna.journal", "sweep"


def open_study(folder: Path, searcher: str, space: Space, maximize: bool, seed: int) -> Study:
    """The study of a folder; started if there is none yet.

    Args:
        folder: The sweep's.
        searcher: One of `SEARCHERS`: every point of a grid; random points; or Optuna's tree-structured Parzen
            estimator (Bergstra et al. 2011, NeurIPS 24), which learns from what was tried.
        space: What is tried.
        maximize: Whether more is better.
        seed: Fixes what is tried, as far as the results are the same.

    Raises:
        UsageError: A grid cannot be made of a range.
    """
    if searcher == "grid" and not is_grid(space):
        raise UsageError("--searcher grid takes --grid alone: a range has no end of points (--search)")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler if searcher == "tpe" else optuna.samplers.RandomSampler
    study: Study = optuna.create_study(
        storage=_storage(folder),
        sampler=sampler(seed=seed),
        study_name=STUDY,
        direction="maximize" if maximize else "minimize",
        load_if_exists=True,
    )
    if searcher == "grid" and not study.trials:
        choices = [[(key, value) for value in distribution.choices] for key, distribution in space.items()]  # type: ignore[attr-defined]
        for point in itertools.product(*choices):
            study.enqueue_trial(dict(point))
    return study


def existing(folder: Path) -> Study:
    """The study of a sweep that was begun.

    Raises:
        UsageError: There is none.
    """
    if not (folder / JOURNAL).is_file():
        raise UsageError(f"{folder}: no sweep was begun here")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study: Study = optuna.load_study(study_name=STUDY, storage=_storage(folder))
    return study


def _storage(folder: Path) -> Any:
    return JournalStorage(JournalFileBackend(str(folder / JOURNAL)))


def begun(study: Study) -> list[FrozenTrial]:
    """Trials that were begun and have not ended: under way, or of a sweep that was stopped."""
    return [trial for trial in study.trials if trial.state == TrialState.RUNNING]


def ask(study: Study, space: Space) -> tuple[int, dict[str, Any]]:
    """Number and settings of the next trial."""
    trial = study.ask(space)
    return trial.number, dict(trial.params)


def tell(study: Study, number: int, value: float | None) -> None:
    """Record a trial's result; None, like a figure that is no number, means that it failed."""
    if value is None or math.isnan(value):
        study.tell(number, state=TrialState.FAIL)
    else:
        study.tell(number, value)


def size(study: Study, searcher: str, trials: int | None) -> int:
    """Number of trials of the whole sweep.

    Raises:
        UsageError: `trials` is missing or below 1 where there is no grid.
    """
    if searcher == "grid":
        return len(study.trials)
    if trials is None or trials < 1:
        raise UsageError("--trials: say how many trainings a search may take, 1 or more")
    return trials


def params(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's settings, also of a point of a grid that waits for its turn."""
    return dict(trial.params or trial.system_attrs.get("fixed_params", {}))
