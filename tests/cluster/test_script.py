"""The script is a function of the job: golden files, and what a shell makes of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from encdl.cluster.job import Request, Surroundings
from encdl.cluster.script import sbatch_script
from encdl.training.run_folder import EXIT_PREEMPTED
from encdl.utils.errors import UsageError
from tests.cluster.golden import FOLDER
from tests.cluster.jobs import JOBS, job

NOTE = """#!/bin/bash
printf '%s\\n' "$0" "$@" >> "$CALLS"
"""
STAND_INS = {
    "encdl": f"{NOTE} exit ${{CODE:-0}}",
    "scontrol": NOTE,
    # A second rank that is killed for the first one's code, as srun does it.
    "srun": 'while [ "$1" != bash ]; do shift; done; "$@" || { code=$?; exit $((code > 143 ? code : 143)); }',
}


@pytest.mark.parametrize("name", JOBS)
def test_golden(name: str) -> None:
    assert sbatch_script(JOBS[name]) == (FOLDER / f"{name}.sh").read_text()
    assert sbatch_script(JOBS[name]) == sbatch_script(JOBS[name])


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in FOLDER.iterdir()} == set(JOBS)


def run(script: str, folder: Path, code: int = 0, **environment: str) -> tuple[int, list[list[str]]]:
    """Run a script with stand-ins for Slurm's commands; its exit code and what it called."""
    calls = folder / "calls"
    calls.write_text("")
    for place in ("trials/0", "trials/1", "bin"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    for name, text in STAND_INS.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    variables = {"PATH": f"{folder}/bin:/usr/bin:/bin", "CALLS": str(calls), "CODE": str(code), **environment}
    done = subprocess.run(["bash", "-c", script], env=variables, capture_output=True, text=True, check=False)
    found: list[list[str]] = []
    for line in calls.read_text().splitlines():
        if line.startswith(f"{folder}/bin/"):
            found.append([line.rpartition("/")[2]])
        else:
            found[-1].append(line)
    return done.returncode, found


def local(folder: Path, **change: Any) -> str:
    """The script of a job in a folder."""
    return sbatch_script(job(folder=str(folder), workdir=str(folder), **change))


def test_words_reach_the_training_as_they_were_given(tmp_path: Path) -> None:
    grid = JOBS["grid"]
    script = local(tmp_path, settings=grid.settings, trials=grid.trials)
    code, [call] = run(script, tmp_path, SLURM_ARRAY_TASK_ID="2")
    assert code == 0
    assert call[-4:] == ["--model.init_args.tag", "$(reboot)", "--seed_everything", "0"]
    assert call[call.index("--resume") + 1] == f"{tmp_path}/trials/2"
    assert call[call.index("--trainer.max_epochs") + 1] == "5"


@pytest.mark.parametrize("asked", [EXIT_PREEMPTED, 138])
def test_a_training_that_made_room_goes_back_into_the_queue(tmp_path: Path, asked: int) -> None:
    script = local(tmp_path, request=Request(requeues=2))
    assert run(script, tmp_path, asked, SLURM_JOB_ID="7")[1][-1] == ["scontrol", "requeue", "7"]
    again = run(script, tmp_path, asked, SLURM_JOB_ID="7", SLURM_RESTART_COUNT="2")
    assert again[0] == EXIT_PREEMPTED
    assert [call[0] for call in again[1]] == ["encdl"]
    assert run(script, tmp_path, 1) == (143, again[1])  # what was asked for then counts no more


def test_a_task_puts_itself_back_and_not_the_whole_array(tmp_path: Path) -> None:
    """Slurm gives one task of an array the number of the array."""
    script = local(tmp_path, trials=((), (("seed_everything", "1"),)))
    variables = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    assert run(script, tmp_path, EXIT_PREEMPTED, **variables)[1][-1] == ["scontrol", "requeue", "7_1"]


@pytest.mark.parametrize("code", [0, 1, 2, 143])
def test_any_other_end_is_an_end(tmp_path: Path, code: int) -> None:
    done, calls = run(local(tmp_path), tmp_path, code)
    assert done == (code and 143)
    assert [call[0] for call in calls] == ["encdl"]


def test_a_task_beyond_the_array_trains_nothing(tmp_path: Path) -> None:
    assert run(local(tmp_path), tmp_path, SLURM_ARRAY_TASK_ID="1") == (1, [])


def test_settings_of_the_user_come_before_those_of_the_request() -> None:
    script = sbatch_script(job(settings=(("trainer.strategy", "fsdp"),), request=Request(gpus=2)))
    assert script.count("--trainer.strategy") == 1
    assert "--trainer.strategy fsdp" in script


SECRETS = [
    ("environment", (("MLFLOW_TRACKING_TOKEN", "abc"),), "the value of a secret"),
    ("environment", (("MLFLOW_TRACKING_URI", "http://me:pw@host:5000"),), "a password in an address"),
    ("environment", (("X", "hf_" + "a" * 30),), "a token"),
    ("environment", (("X", "AKIA" + "A" * 16),), "a token"),
    ("environment", (("X", "eyJhbGciOiJI.eyJzdWIiOiIx.abc"),), "a token"),
    ("environment", (("PW", "hunter2"),), "the value of a secret"),
    ("environment", (("DB_PWD", "hunter2"),), "the value of a secret"),
    ("environment", (("PGPASS", "hunter2"),), "the value of a secret"),
    ("environment", (("ENCDL_KEY", "hunter2"),), "the value of a secret"),
    ("environment", (("X", "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="),), "a bare key"),
    ("environment", (("X", "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJBHfmnA"),), "a bare key"),
    ("environment", (("X", "0123456789abcdef" * 4),), "a bare key"),
    *(
        ("setup", (f"echo encdl-{kind}-1:xyz",), "the content of a key or grant file")
        for kind in ("key", "grant", "signing", "recipient", "locked", "sealed")
    ),
    ("setup", ("export AWS_SECRET_ACCESS_KEY=abc",), "the value of a secret"),
    ("setup", ("db_password='abc'",), "the value of a secret"),
    ("setup", ("curl -H 'Authorization: Basic abc' http://host",), "an authorisation header"),
    ("setup", ("echo encdl-key-1:abcd",), "the content of a key"),
]


@pytest.mark.parametrize(("field", "value", "what"), SECRETS)
def test_no_secret_gets_into_a_script(field: str, value: tuple[str, ...], what: str) -> None:
    with pytest.raises(UsageError, match=rf"line \d+ of the script would hold (what looks like )?{what}") as told:
        sbatch_script(job(surroundings=Surroundings(**{field: value})))  # type: ignore[arg-type]
    assert "abc" not in str(told.value)
    assert "aaa" not in str(told.value).lower()


def test_a_secret_in_a_setting() -> None:
    with pytest.raises(UsageError, match="would hold the value of a secret"):
        sbatch_script(job(settings=(("trainer.logger.token", "abc"),)))
    with pytest.raises(UsageError, match="would hold the content of a key or grant file"):
        sbatch_script(job(settings=(("model.init_args.tag", "encdl-grant-1:xyz"),)))


@pytest.mark.parametrize(
    "line",
    [
        'export MLFLOW_TRACKING_TOKEN="$(cat ~/.token)"',
        "export HF_TOKEN=$TOKEN_OF_MINE",
        "source ~/.secrets",
        "export KEY_FILE=~/k.key",
        "cd /Data/Brain_Tumours_2026/Sub-Folder/Version7/Images_Of_Q",
        "export MONKEY=3",
    ],
)
def test_where_a_secret_comes_from_may_be_told(line: str) -> None:
    assert line in sbatch_script(job(surroundings=Surroundings(setup=(line,))))
