"""`encdl submit` and `encdl jobs` with stand-ins for Slurm; the real one is in tests/cluster/test_live.py."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from mlflow import MlflowClient

from encdl.cli import main
from encdl.cluster.job import Submitted
from encdl.training.run_folder import RESUME_TAG
from tests.commands.stand_ins import StandIns
from tests.runs import DRAWING
from tests.stores import make_store

SUBMIT = ["submit", "--config", "tiny.yaml", "--cluster", "slurm", "--name", "one"]
FOLDER = Path("runs/jobs/one")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """A folder with a recipe and an empty store, and a Slurm that takes everything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make_store(tmp_path / "runs")
    Path("tiny.yaml").write_text(DRAWING % 0)
    programs = StandIns(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{programs.folder}:/usr/bin:/bin")
    programs.add("sbatch", "42")
    programs.add("scancel")
    programs.add("scontrol", "JobId=42 JobName=one JobState=RUNNING")
    return programs


def test_a_dry_run_prints_and_does_nothing(slurm: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SUBMIT, "--dry-run", "--grid", "model.init_args.tag=a,b", "--seeds", "2", "--time", "60"]) == 0
    script = capsys.readouterr().out
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert "#SBATCH --time=60\n" in script
    assert "#SBATCH --array=0-3\n" in script
    assert "3) settings=(--model.init_args.tag b --seed_everything 1" in script
    assert not slurm.calls("sbatch")
    assert not FOLDER.exists()


def test_a_dry_run_refuses_what_a_submission_would(slurm: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SUBMIT, "--dry-run", "--set", "trainer.max_epoch=2"]) == 2
    told = capsys.readouterr()
    assert "unrecognized arguments: --trainer.max_epoch" in told.err
    assert not told.out
    assert not slurm.calls("sbatch")


def test_what_is_printed_is_what_is_submitted(slurm: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SUBMIT, "--set", "trainer.max_epochs=2", "--env", "A=b"]
    main([*words, "--dry-run"])
    script = capsys.readouterr().out
    assert main(words) == 0
    assert (FOLDER / "job.sbatch").read_text() == script
    for name in ("job.sbatch", "job.json"):
        assert (FOLDER / name).stat().st_mode & 0o777 == 0o600
    assert "#SBATCH --export=NONE\n" in script
    assert slurm.calls("sbatch") == [["--parsable", str((FOLDER / "job.sbatch").absolute())]]
    record = Submitted.read(FOLDER)
    assert record.slurm_id == "42"
    assert record.job.settings == (("trainer.max_epochs", "2"),)
    assert (FOLDER / "trials/0/run-key").is_file()
    assert (FOLDER / "logs").is_dir()
    assert capsys.readouterr().out.strip() == str(FOLDER.absolute())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--set", "trainer.max_epoch=2"], "unrecognized arguments: --trainer.max_epoch"),
        (["--grid", "model.init_args.learning_rate=1,x"], "learning_rate"),
        (["--grid", "a"], "--grid a: give KEY=VALUE"),
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--config", "none.yaml"], "none.yaml: no such recipe"),
        (["--gpus", "-1"], "--gpus is -1: give 0 or more"),
        (["--name", "../up"], "give letters, digits"),
        (["--env", "MLFLOW_TRACKING_PASSWORD=geheim"], "would hold the value of a secret"),
        (["--setup", "export API_KEY=geheim"], "would hold the value of a secret"),
        (["--env", "geheim"], "--env geheim: give NAME=VALUE"),
        (["--cluster", "pbs"], "invalid choice"),
    ],
)
def test_a_mistake_is_told_before_anything_is_submitted(
    slurm: StandIns, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main([*SUBMIT, *more])
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("encdl: error: ")
    assert said in error
    assert not slurm.calls("sbatch")
    assert not FOLDER.exists()


def test_a_password_in_the_address_of_the_store(
    slurm: StandIns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:geheim@host")
    assert main(SUBMIT) == 2
    error = capsys.readouterr().err
    assert "would hold a password in an address" in error
    assert "geheim" not in error


def test_a_name_is_taken_once(slurm: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SUBMIT) == 0
    assert main(SUBMIT) == 2
    assert "runs/jobs/one: there is a job of that name: give another --name" in capsys.readouterr().err


def test_a_machine_without_slurm(
    slurm: StandIns, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.remove(slurm.folder / "sbatch")
    monkeypatch.setenv("PATH", str(slurm.folder))  # nothing else: this machine may have Slurm
    assert main(SUBMIT) == 2
    assert "sbatch is not installed here: run this on a login node" in capsys.readouterr().err


def test_jobs_stand_beside_their_runs(slurm: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs"]) == 0
    assert "no jobs below runs/jobs: `encdl submit` makes them" in capsys.readouterr().err
    main([*SUBMIT, "--grid", "model.init_args.tag=a,b"])
    slurm.add(
        "scontrol",
        "JobId=42 ArrayJobId=42 ArrayTaskId=1 JobState=PENDING\nJobId=43 ArrayJobId=42 ArrayTaskId=0 JobState=RUNNING",
    )
    client = MlflowClient(f"sqlite:///{Path('runs').absolute()}/mlflow.db")
    run = client.create_run("0", tags={RESUME_TAG: (FOLDER / "trials/0/run-key").read_text().strip()})
    capsys.readouterr()
    assert main(["jobs"]) == 0
    _, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["one", "0", "42", "RUNNING", run.info.run_id, "RUNNING", "tag=a"],
        ["one", "1", "42", "PENDING", "-", "-", "tag=b"],
    ]


def test_jobs_are_cancelled_and_handed_in_again(slurm: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    main(SUBMIT)
    assert main(["jobs", "one", "--again"]) == 2
    assert "one: is running yet: cancel it first (--cancel)" in capsys.readouterr().err
    assert main(["jobs", "one", "--cancel"]) == 0
    assert slurm.calls("scancel") == [["42"]]
    slurm.add("scontrol", "JobId=42 JobState=CANCELLED Reason=None")
    slurm.add("sbatch", "50")
    assert main(["jobs", "one", "--again"]) == 0
    assert Submitted.read(FOLDER).slurm_id == "50"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none"], "runs/jobs/none: no such job"),
        (["--cancel"], "--cancel and --again want the names of jobs"),
        (["one", "--cancel", "--again"], "give one of them"),
    ],
)
def test_mistakes_about_jobs(slurm: StandIns, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_damaged_record_hides_no_other_job(slurm: StandIns, capsys: pytest.CaptureFixture[str]) -> None:
    main(SUBMIT)
    Path("runs/jobs/two").mkdir()
    Path("runs/jobs/two/job.json").write_text("{")
    capsys.readouterr()
    assert main(["jobs"]) == 0
    told = capsys.readouterr()
    assert "two/job.json: not a record of a submitted job" in told.err
    assert "one" in told.out
