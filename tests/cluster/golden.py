"""Writes the golden scripts anew: python -m tests.cluster.golden. Look at the difference before you keep it."""

from __future__ import annotations

from pathlib import Path

from encdl.cluster.script import sbatch_script
from tests.cluster.jobs import JOBS

FOLDER = Path(__file__).parents[1] / "golden" / "sbatch"

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, job in JOBS.items():
        (FOLDER / f"{name}.sh").write_text(sbatch_script(job))
