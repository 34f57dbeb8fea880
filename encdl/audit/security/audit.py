"""An audit and all that it leaves in its folder: record, plots, report, a run in MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from encdl.audit.security import page, record, verdict
from encdl.audit.security.measures import cuts
from encdl.audit.security.request import Order
from encdl.audit.security.run import run as measure
from encdl.audit.security.settings import Settings
from encdl.utils.atomic import write_bytes
from encdl.utils.errors import UsageError
from encdl.utils.messages import warn


def audit(
    order: Order,
    settings: Settings,
    config: Path | None,
    folder: Path,
    progress: Callable[[str], None],
    tell: Callable[[str], None],
    untracked: bool = False,
) -> bool:
    """Measure, judge and write; whether the cipher passed.

    Args:
        order: what is audited, and how.
        settings: what the order was made from.
        config: their file, for the record.
        folder: for everything; an audit that was ended goes on there.
        progress: is told what has been done.
        tell: is told what was found.
        untracked: log nothing to MLflow.
    """
    started = time.monotonic()
    attacked = cuts(order)  # before the folder is made: data that cannot be read leave nothing behind
    progress(f"images read: {order.data}")
    metrics = record.metrics(measure(order, folder / "parts", settings.jobs, progress))
    checks = verdict.checks(metrics)
    wall_s = time.monotonic() - started
    content = record.record(order, settings, config, metrics, checks, attacked, wall_s)
    record.write(folder, content)
    progress("plots and report")
    drawn = page.draw(order, metrics)
    (folder / "plots").mkdir(exist_ok=True)
    for name, png in drawn.items():
        write_bytes(folder / "plots" / f"{name}.png", png, force=True)
    write_bytes(folder / "report.html", page.html(content, drawn).encode(), force=True)
    tell(record.table(metrics, checks))
    if not untracked:
        _track(content, folder)
    tell(f"record: {folder / record.RECORD}\nreport: {folder / 'report.html'}")
    return verdict.passed(checks)


def _track(content: dict[str, Any], folder: Path) -> None:
    """Log the audit to MLflow; where that cannot be, say so and go on: the audit itself is written."""
    try:
        from encdl.audit.security.tracking import track  # noqa: PLC0415

        track(content, folder)
    except UsageError as error:
        warn(f"the audit is not logged to MLflow: {error}")
