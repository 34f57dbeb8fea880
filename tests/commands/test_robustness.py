"""Kills and memory, each in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def python(module: str, *words: object, threads: str | None = "1") -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = threads
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_few_kills(tmp_path: Path) -> None:
    assert python("tests.commands.kill_trials", tmp_path, 2, "encrypt")["kills"] == 2


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("verb", "trials", "options"),
    [
        ("encrypt", 50, ""), ("encrypt", 20, "--jobs 2 --wrap aes"),
        ("decrypt", 20, ""), ("decrypt", 20, "--jobs 2"), ("rekey", 50, ""), ("recipients", 50, ""),
    ],
)  # fmt: skip
def test_kills_at_random_moments_lose_nothing(tmp_path: Path, verb: str, trials: int, options: str) -> None:
    """Every kill hit a run at work; originals untouched, no half file to be seen, and the last run completes."""
    found = python("tests.commands.kill_trials", tmp_path, trials, verb, *options.split())
    print(found)
    assert found["kills"] == trials
    assert found["partly_done"] > 0


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_a_large_volume_takes_bounded_memory(tmp_path: Path) -> None:
    """300 MB of int16 both ways and through a reader, by the network that comes with EncDL: minutes on two cores."""
    found = python("tests.commands.memory_trial", tmp_path, "600x512x512", threads=None)
    print(found)
    assert found["same"]
    assert found["encrypt"]["peak_mib"] < 1024
    assert found["decrypt"]["peak_mib"] < 1024
    assert found["predict"]["peak_mib"] < 1536


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_serving_a_large_volume_takes_bounded_memory(tmp_path: Path) -> None:
    """157 MB of int16 through a server with a grant, and through one without a key and its key server."""
    found = python("tests.serving.memory_trial", tmp_path, "300x512x512", threads=None)
    print(found)
    assert found["encrypt"]["peak_mib"] < 1024
    assert found["serve"]["peak_mib"] < 1536
    assert found["keyless"]["peak_mib"] < 1536
    assert found["keyless"]["keyserver_peak_mib"] < 1024
    assert min(found["progress_lines"]) > 0
