"""Runs recorded by MLflow in one folder: settings, metrics, images, the machine's load, how a run ended.

Nothing here needs the network; MLflow is imported when a `RunLogger` is made. What things are called:
docs/comparing-runs.md.
"""

from encdl.training.tracking.groups import RunGroup
from encdl.training.tracking.logger import PARENT_VARIABLE, RunLogger, run_logger
from encdl.training.tracking.names import flatten
from encdl.training.tracking.processes import end_lost_runs
from encdl.training.tracking.run_record import RunRecord, run_id_of
from encdl.training.tracking.store import find_run, open_store

__all__ = [
    "PARENT_VARIABLE",
    "RunGroup",
    "RunLogger",
    "RunRecord",
    "end_lost_runs",
    "find_run",
    "flatten",
    "open_store",
    "run_id_of",
    "run_logger",
]
