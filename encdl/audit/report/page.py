"""The page of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encdl.audit.html_page import COLOURS, inline, render
from encdl.audit.report import plots
from encdl.audit.report.gather import RunData, groups, over_runs
from encdl.utils import records

SYSTEM = "system/"
EPOCH = "epoch"
FROM_TAGS = ("task", "data", "view", "seed", "config_hash", "cipher_weights", "device", "commit", "versions", "host")
"""Lines of the table of origins; the first few also stand in the list of runs."""
PEAKS = {
    "system/system_memory_usage_megabytes": "memory of the machine at its fullest, MB",
    "system/cpu_utilization_percentage": "load of the CPU at its highest, %",
    "system/gpu_0_memory_usage_megabytes": "memory of GPU 0 at its fullest, MB",
    "system/gpu_0_utilization_percentage": "load of GPU 0 at its highest, %",
}


def html(runs: Sequence[RunData], store: str) -> str:
    """The page.

    Args:
        runs: What to compare, in the order of the columns.
        store: Address of the MLflow store, without a password.
    """
    metrics = sorted(_metrics(runs), key=_order)
    settings = sorted({name for run in runs for name in run.params})
    differ = [name for name in settings if len({run.params.get(name) for run in runs}) > 1]
    return render(
        Path(__file__).with_name("report.html.jinja"),
        runs=runs,
        store=store,
        date=records.now(),
        colours=[COLOURS[number % len(COLOURS)] for number in range(len(runs))],
        durations=[_duration(run.seconds) for run in runs],
        metrics=metrics,
        curves=_curves(runs, metrics),
        groups=[(recipe, members, over_runs(members)) for recipe, members in groups(runs).items()],
        differ=differ,
        same=[(name, runs[0].params.get(name, "")) for name in settings if name not in differ],
        origins=[(name, [run.tags.get(name, "") for run in runs]) for name in FROM_TAGS],
        peaks=_peaks(runs),
        panels=[inline(run.panel) if run.panel else "" for run in runs],
    )


def _metrics(runs: Sequence[RunData]) -> set[str]:
    """All figures, without Lightning's count of epochs and without a short name for what a row says, too."""
    names = {name for run in runs for name in run.curves if not name.startswith(SYSTEM) and name != EPOCH}

    def again(short: str, name: str) -> bool:
        return all(run.curves.get(short) == run.curves.get(name) for run in runs)

    return {short for short in names if not any(name.startswith(f"{short}/") and again(short, name) for name in names)}


def _order(name: str) -> tuple[int, str]:
    stages = ("val/", "test/", "train/")
    return next((place for place, stage in enumerate(stages) if name.startswith(stage)), len(stages)), name


def _curves(runs: Sequence[RunData], metrics: Sequence[str]) -> list[tuple[str, str]]:
    """Images of those metrics that changed within a run: of others the table says all."""
    found = []
    for name in metrics:
        by_run = {number: run.curves[name] for number, run in enumerate(runs) if name in run.curves}
        if any(len({value for _, value in curve}) > 1 for curve in by_run.values()):
            found.append((name, inline(plots.curves(name, by_run))))
    return found


def _peaks(runs: Sequence[RunData]) -> list[tuple[str, list[float | None]]]:
    rows = []
    for name, label in PEAKS.items():
        highest: list[Any] = [max((value for _, value in run.curves.get(name, [])), default=None) for run in runs]
        if any(value is not None for value in highest):
            rows.append((label, highest))
    return rows


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "still running"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
