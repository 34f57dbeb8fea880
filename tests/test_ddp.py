"""Scaling over processes: the bench of several GPUs, on two processes of a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = ["--accelerator", "cpu", "--gpus", "2", "--steps", "3", "--warm-up", "1", "--batch", "4", "--crop", "16"]


@pytest.mark.slow
def test_two_processes_are_measured_beside_one(tmp_path: Path) -> None:
    record = tmp_path / "ddp.json"
    words = [*TINY, "--loaders", "0", "--cipher", '{"width": 8, "blocks": 1}', "-o", str(record)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = str(ROOT / "experiments" / "ddp.py")
    done = subprocess.run(
        [sys.executable, script, *words], capture_output=True, text=True, check=False, env=environment, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads(record.read_text())
    assert content["settings"]["compile"] is False
    found = content["metrics"]
    assert set(found["runs"]) == {"one", "weak_2", "strong_2", "seed_1", "seed_2"}
    assert all(run["images_per_s"] > 0 and run["final_loss"] > 0 for run in found["runs"].values())
    one, two = (found["runs"][name]["images_per_s"] for name in ("one", "weak_2"))
    assert found["weak_scaling"] == {"2": two / one}
    assert set(found["strong_scaling"]) == {"2"}
    assert len(found["final_loss_of_seeds_on_one_gpu"]["values"]) == 3
    assert found["failed"] == {}
