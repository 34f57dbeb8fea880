"""MLflow data bases for tests: made once (it takes seconds), then copied."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from encdl.training.tracking import RunLogger


@cache
def _empty_store() -> Path:
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    RunLogger(root=folder)
    return Path(folder, "mlflow.db")


def make_store(root: Path) -> str:
    """Put an empty data base where a `RunLogger` over `root` looks for it, and return `root` as text."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(_empty_store(), root / "mlflow.db")
    return str(root)
