"""The data of a run for a report, read from the MLflow store."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from encdl.training.tracking import find_run
from encdl.training.tracking.names import CONFIG_TAG, PARENT_TAG

MAX_PANEL_BYTES = 4_000_000

Curve = list[tuple[int, float]]
"""Step and value, in the order of the steps."""


@dataclass(frozen=True)
class RunData:
    """One run.

    Attributes:
        id: MLflow's.
        name: As MLflow shows it.
        status: FINISHED, FAILED, KILLED or RUNNING.
        seconds: From start to end; None while it runs.
        params: Its settings.
        tags: Its tags, without MLflow's own.
        curves: Metric to what it was at each step.
        datasets: Name, digest, context and profile of what it read.
        panel: Its last panel, a PNG file; None if it has none.
        panel_name: Where that lies among the artifacts.
    """

    id: str
    name: str
    status: str
    seconds: float | None
    params: dict[str, str]
    tags: dict[str, str]
    curves: dict[str, Curve]
    datasets: list[dict[str, Any]] = field(default_factory=list)
    panel: bytes | None = None
    panel_name: str = ""

    @property
    def last(self) -> dict[str, float]:
        """The last value of every metric."""
        return {name: curve[-1][1] for name, curve in self.curves.items()}


def gather(client: Any, names: Sequence[str]) -> list[RunData]:
    """The runs with these ids, beginnings of ids or names, each once; behind a group's run come those that it holds.

    Raises:
        UsageError: There is no such run.
    """
    found: dict[str, Any] = {}
    for name in names:
        run = find_run(client, name)
        found.setdefault(run.info.run_id, run)
        children = client.search_runs([run.info.experiment_id], f"tags.`{PARENT_TAG}` = '{run.info.run_id}'")
        for child in reversed(children):  # the oldest first
            found.setdefault(child.info.run_id, child)
    return [_read(client, run) for run in found.values()]


def groups(runs: Sequence[RunData]) -> dict[str, list[RunData]]:
    """Runs of one recipe that differ in their seeds, by the recipe's hash, where there are several."""
    by_recipe: dict[str, list[RunData]] = {}
    for run in runs:
        recipe = run.tags.get(CONFIG_TAG)
        if recipe:
            by_recipe.setdefault(recipe, []).append(run)
    return {recipe: members for recipe, members in by_recipe.items() if len(members) > 1}


def over_runs(runs: Sequence[RunData]) -> dict[str, tuple[float, float]]:
    """Mean and sample standard deviation of the last values of those metrics that all runs have."""
    shared = [name for name in runs[0].last if all(name in run.last for run in runs)]
    values = {name: [run.last[name] for run in runs] for name in shared}
    return {name: (statistics.fmean(found), statistics.stdev(found)) for name, found in values.items()}


def _read(client: Any, run: Any) -> RunData:
    info, run_id = run.info, run.info.run_id
    curves = {name: _curve(client.get_metric_history(run_id, name)) for name in sorted(run.data.metrics)}
    panel_name, panel = _panel(client, run_id)
    return RunData(
        id=run_id,
        name=info.run_name,
        status=info.status,
        seconds=(info.end_time - info.start_time) / 1000 if info.end_time else None,
        params=dict(run.data.params),
        tags={name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")},
        curves=curves,
        datasets=[_dataset(each) for each in (run.inputs.dataset_inputs if run.inputs else [])],
        panel=panel,
        panel_name=panel_name,
    )


def _curve(history: Sequence[Any]) -> Curve:
    """The last value of each step: a run that was continued may have logged a step twice."""
    by_step = {point.step: point.value for point in sorted(history, key=lambda point: point.timestamp)}
    return sorted(by_step.items())


def _dataset(found: Any) -> dict[str, Any]:
    context = next((tag.value for tag in found.tags if tag.key == "mlflow.data.context"), "")
    profile = json.loads(found.dataset.profile or "{}")
    return {"name": found.dataset.name, "digest": found.dataset.digest, "context": context, "profile": profile}


def _panel(client: Any, run_id: str) -> tuple[str, bytes | None]:
    listed = [file for file in client.list_artifacts(run_id, "panels") if file.path.endswith(".png")]
    listed = [file for file in listed if (file.file_size or 0) <= MAX_PANEL_BYTES]
    if not listed:
        return "", None
    last = max(listed, key=lambda file: file.path)
    with TemporaryDirectory() as folder:
        return last.path, Path(client.download_artifacts(run_id, last.path, folder)).read_bytes()
