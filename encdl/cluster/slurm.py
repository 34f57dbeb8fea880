"""Slurm's own commands: submit, ask for states, cancel."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from encdl.utils.errors import EncdlError, UsageError

WAIT_S = 60
UNKNOWN = "GONE"
"""State of what the cluster has forgotten: without accounts it does so some minutes after a job's end."""
ARRAY = re.compile(r"(\d+)-(\d+)(?::(\d+))?")


def need_slurm() -> None:
    """Fail if this machine cannot submit.

    Raises:
        UsageError: sbatch is not installed.
    """
    if shutil.which("sbatch") is None:
        raise UsageError("sbatch is not installed here: run this on a login node of the cluster, or give --dry-run")


def submit(script: Path, dependency: str | None = None) -> str:
    """Hand a script to the cluster.

    Args:
        script: The file.
        dependency: A condition in Slurm's words, such as `afterany:7`.

    Returns:
        The job's number.

    Raises:
        EncdlError: Slurm refuses it; its words are in the message.
    """
    need_slurm()
    told = _run(["sbatch", "--parsable", *([f"--dependency={dependency}"] if dependency else []), str(script)])
    return told.strip().partition(";")[0]


def cancel(slurm_id: str) -> None:
    """End a job, all trainings of an array."""
    _run(["scancel", slurm_id])


def states(slurm_id: str, trials: int) -> list[str]:
    """State of each training of a job: PENDING, RUNNING, COMPLETED, CANCELLED, …; `UNKNOWN` if nobody knows.

    Asks the controller, and for jobs that it has forgotten the accounts, where there are any.
    """
    known = _of_controller(slurm_id) or _of_accounts(slurm_id)
    return [known.get(number, UNKNOWN) for number in range(trials)]


def _of_controller(slurm_id: str) -> dict[int, str]:
    try:
        told = _run(["scontrol", "show", "job", "--oneliner", slurm_id])
    except EncdlError:  # forgotten, or no Slurm here
        return {}
    found: dict[int, str] = {}
    for line in told.splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        if "JobState" in fields:
            for number in _numbers(fields.get("ArrayTaskId", "0")):
                found[number] = fields["JobState"]
    return found


def _of_accounts(slurm_id: str) -> dict[int, str]:
    try:
        told = _run(["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State", "-j", slurm_id])
    except EncdlError:
        return {}
    found: dict[int, str] = {}
    for line in told.splitlines():
        job, _, state = line.partition("|")
        for number in _numbers(job.partition("_")[2] or "0"):
            found[number] = (state.split() or [UNKNOWN])[0]
    return found


def _numbers(text: str) -> list[int]:
    """The numbers that Slurm means by `3`, `0-5`, `[2,4-6%2]`."""
    numbers: list[int] = []
    for part in text.strip("[]").partition("%")[0].split(","):
        if span := ARRAY.fullmatch(part):
            numbers += range(int(span[1]), int(span[2]) + 1, int(span[3] or 1))
        elif part.isdigit():
            numbers.append(int(part))
    return numbers


def _run(words: list[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=WAIT_S)
    except FileNotFoundError as error:
        raise EncdlError(f"{words[0]} is not installed here") from error
    except subprocess.TimeoutExpired as error:
        raise EncdlError(f"{words[0]} did not answer within {WAIT_S} s: is the cluster up?") from error
    except subprocess.CalledProcessError as error:
        said = " ".join(f"{error.stderr} {error.stdout}".split())
        raise EncdlError(f"{words[0]} refused: {said or f'exit code {error.returncode}'}") from error
    return done.stdout
