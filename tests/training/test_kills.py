"""SIGKILL ends trainings at any moment, and they go on: the same metrics as an undisturbed one, in one run each."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.processes import run, start
from tests.runs import DRAWING, points, runs
from tests.stores import make_store

TRIALS = 20
WORDS = ["fit", "--config", "tiny.yaml", "--resume", "place", "--resume_every", "5"]


def new_folder(parent: Path, name: str) -> Path:
    folder = parent / name
    make_store(folder / "runs")
    (folder / "tiny.yaml").write_text(DRAWING % 0.02)
    return folder


def outcome(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The points of the only run, and the last weights."""
    [one] = runs(folder / "runs")
    assert one.info.status == "FINISHED"
    weights = torch.load(folder / "place" / "last.ckpt", weights_only=True)["state_dict"]
    return points(folder / "runs", one.info.run_id), weights


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_twenty_killed_trainings_end_as_the_whole_one(tmp_path: Path) -> None:
    whole = new_folder(tmp_path, "whole")
    assert run(WORDS, whole) == 0  # loads the libraries, too
    began = time.monotonic()
    assert run(WORDS[:3], new_folder(tmp_path, "timed")) == 0
    takes = time.monotonic() - began
    expected, weights = outcome(whole)
    when = random.Random(0)
    killed = steps = 0
    while killed < TRIALS:
        folder = new_folder(tmp_path, f"trial-{killed}-{time.monotonic_ns()}")
        process = start(WORDS, folder)
        process.join(when.uniform(0.0, 1.1) * takes)
        if not process.is_alive():
            continue  # it was faster: no trial
        process.kill()
        process.join()
        if process.exitcode == 0:
            continue  # it ended between the two
        assert process.exitcode == -9
        found = folder / "place" / "last.ckpt"
        steps += torch.load(found, weights_only=True)["global_step"] if found.is_file() else 0
        assert run(WORDS, folder) == 0, (folder / "log").read_text()[-3000:]
        again, restored = outcome(folder)
        assert again == expected
        assert all(torch.equal(value, restored[name]) for name, value in weights.items())
        killed += 1
    assert steps > 0  # some went on from a checkpoint, not from the start
    print(f"{killed} trainings killed, with {steps} of {killed * 48} steps kept in their checkpoints")
