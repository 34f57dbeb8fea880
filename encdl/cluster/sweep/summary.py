"""Results of a sweep: read from its runs, kept in the parent run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encdl.cluster.grid import Trial, told
from encdl.cluster.submission import runs_of
from encdl.cluster.sweep import search
from encdl.cluster.sweep.plan import Sweep
from encdl.cluster.sweep.space import settings
from encdl.utils.atomic import write_bytes

if TYPE_CHECKING:
    from optuna import Study

TABLE = "trials.csv"


@dataclass(frozen=True)
class Result:
    """One training of a sweep.

    Attributes:
        number: Of the trial.
        trial: Its settings.
        state: What Optuna calls it: COMPLETE, FAIL, RUNNING, WAITING.
        value: The figure that is looked for, if the training has ended well.
    """

    number: int
    trial: Trial
    state: str
    value: float | None


def value_of(sweep: Sweep, number: int) -> float | None:
    """The metric of a training that has ended; None if its run did not end well or lacks the metric."""
    run = runs_of(sweep.store, [sweep.place(number)]).get(sweep.place(number))
    if run is None or run.info.status != "FINISHED":
        return None
    value: float | None = run.data.metrics.get(sweep.metric)
    return value


def results(study: Study) -> list[Result]:
    """All trainings, by number."""
    return [
        Result(trial.number, settings(search.params(trial)), trial.state.name, trial.value) for trial in study.trials
    ]


def best(sweep: Sweep, found: Sequence[Result]) -> Result | None:
    """The training with the best figure, the first of equals; None if none ended well."""
    judged = [(result.value, result) for result in found if result.value is not None]
    if not judged:
        return None
    pick = max if sweep.maximize else min
    return pick(judged, key=lambda pair: pair[0])[1]


def table(sweep: Sweep, found: Sequence[Result]) -> str:
    """The trainings as text, best first."""
    sign = -1 if sweep.maximize else 1
    ordered = sorted(found, key=lambda result: (result.value is None, sign * (result.value or 0.0), result.number))
    lines = [f"{'TASK':>4}  {'STATE':<8}  {sweep.metric:>12}  SETTINGS"]
    for result in ordered:
        value = "-" if result.value is None else f"{result.value:.6g}"
        lines.append(f"{result.number:>4}  {result.state:<8}  {value:>12}  {told(result.trial)}")
    return "\n".join(lines)


def write_table(sweep: Sweep, found: Sequence[Result]) -> Path:
    """The trainings as a CSV file in the sweep's folder: number, state, the figure, and a column a setting."""
    keys = list(dict.fromkeys(key for result in found for key, _ in result.trial))
    rows = [["number", "state", sweep.metric, *keys]]
    for result in found:
        chosen = dict(result.trial)
        value = "" if result.value is None else repr(result.value)
        rows.append([str(result.number), result.state, value, *(chosen.get(key, "") for key in keys)])
    file = Path(sweep.folder, TABLE)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_bytes(file, text.getvalue().encode(), force=True)
    return file


def record(sweep: Sweep, found: Sequence[Result], client: Any) -> None:
    """Sum up in the parent run: the best figure and its settings, how many ended well, the table."""
    file = write_table(sweep, found)
    ended = sum(result.state in {"COMPLETE", "FAIL"} for result in found)
    failed = sum(result.state == "FAIL" for result in found)
    counts = {"trials/complete": ended - failed, "trials/failed": failed}
    for name, count in counts.items():
        client.log_metric(sweep.parent, name, float(count), step=ended)
    winner = best(sweep, found)
    if winner is not None and winner.value is not None:
        client.log_metric(sweep.parent, f"best/{sweep.metric}", winner.value, step=ended)
        client.set_tag(sweep.parent, "best_settings", told(winner.trial))
        run = runs_of(sweep.store, [sweep.place(winner.number)]).get(sweep.place(winner.number))
        if run is not None:
            client.set_tag(sweep.parent, "best_run", run.info.run_id)
    client.log_artifact(sweep.parent, str(file))
