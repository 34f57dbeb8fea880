"""Logs an audit to MLflow: its figures as metrics, its page and plots as artifacts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from encdl.audit.security.record import RECORD
from encdl.training.tracking import RunLogger


def track(record: Mapping[str, Any], folder: Path) -> None:
    """Log a run of the experiment `audit`.

    Args:
        record: The audit's.
        folder: Where its files are.

    Raises:
        UsageError: MLflow's store cannot be opened.
    """
    logger = RunLogger("audit", run_name=f"{record['cipher']} {record['date']}")
    told = ("cipher", "weights", "dataset", "sequence", "commit", "device", "passed")
    budget = {f"budget/{name}": value for name, value in record["budget"].items()}
    origin = {"seed": record["seeds"][0], "data_digest": record["data"]["digest"]}
    logger.log_hyperparams({name: record[name] for name in told} | origin | budget)
    logger.log_metrics(dict(_figures(record["metrics"])))
    for file in (folder / RECORD, folder / "report.html", folder / "plots"):
        logger.experiment.log_artifact(logger.run_id, str(file))
    logger.finalize("success")


def _figures(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for finding in metrics["attacks"]:
        name = f"attack/{finding['name']}/{finding['target']}/{finding['mode']}"
        yield f"{name}/score", finding["score"]
        yield f"{name}/baseline", finding["baseline"]
        yield f"{name}/broken", float(finding["broken"])
    for row, figures in metrics["rows"].items():
        yield from ((f"row/{row}/{name}", value) for name, value in figures.items() if isinstance(value, float))
