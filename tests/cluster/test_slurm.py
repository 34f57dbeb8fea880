"""Slurm's answers, from stand-ins for its commands; the real ones are in test_live.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from encdl.cluster import slurm
from encdl.utils.errors import EncdlError, UsageError


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with programs in it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def stand_in(folder: Path, name: str, answer: str, code: int = 0, stream: int = 1) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\nprintf '%s\\n' '{answer}' >&{stream}\nexit {code}\n")
    file.chmod(0o755)


def test_a_number_is_given(commands: Path) -> None:
    stand_in(commands, "sbatch", "42;cluster")
    assert slurm.submit(commands / "job") == "42"


def test_a_refusal_is_told(commands: Path) -> None:
    stand_in(commands, "sbatch", "sbatch: error: invalid partition specified: x", 1, 2)
    with pytest.raises(EncdlError, match="sbatch refused: sbatch: error: invalid partition specified: x"):
        slurm.submit(commands / "job")


def test_a_machine_without_slurm(commands: Path) -> None:
    with pytest.raises(UsageError, match="sbatch is not installed here: run this on a login node"):
        slurm.submit(commands / "job")
    with pytest.raises(EncdlError, match="scancel is not installed here"):
        slurm.cancel("3")
    assert slurm.states("3", 2) == ["GONE", "GONE"]


def test_states_of_an_array(commands: Path) -> None:
    lines = [
        "JobId=7 ArrayJobId=7 ArrayTaskId=3-5%2 JobName=x JobState=PENDING Reason=None",
        "JobId=8 ArrayJobId=7 ArrayTaskId=0 JobName=x JobState=RUNNING Reason=None",
        "JobId=9 ArrayJobId=7 ArrayTaskId=2 JobName=x JobState=COMPLETED Reason=None",
    ]
    stand_in(commands, "scontrol", "\n".join(lines))
    assert slurm.states("7", 6) == ["RUNNING", "GONE", "COMPLETED", "PENDING", "PENDING", "PENDING"]


def test_the_accounts_know_what_the_controller_forgot(commands: Path) -> None:
    stand_in(commands, "scontrol", "slurm_load_jobs error: Invalid job id specified", 1, 2)
    stand_in(commands, "sacct", "7_0|COMPLETED\n7_1|CANCELLED by 0\n7_[2-3]|PENDING")
    assert slurm.states("7", 5) == ["COMPLETED", "CANCELLED", "PENDING", "PENDING", "GONE"]
    stand_in(commands, "sacct", "7|TIMEOUT")
    assert slurm.states("7", 1) == ["TIMEOUT"]
