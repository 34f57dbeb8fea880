"""`encdl sweep` without the trainings; some real ones are marked slow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from encdl.cli import main
from encdl.cluster.sweep import run as sweep
from encdl.training.run_folder import RESUME_TAG
from tests.commands.stand_ins import StandIns
from tests.runs import DRAWING, runs
from tests.stores import make_store

SWEEP = ["sweep", "--config", "tiny.yaml", "--name", "s"]
GRID = [*SWEEP, "--grid", "model.init_args.tag=a,bb,c"]
FOLDER = Path("runs/sweeps/s")


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A folder to sweep in, where a training measures the length of its tag; the tags that were trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make_store(tmp_path / "runs")
    Path("tiny.yaml").write_text(DRAWING % 0)
    tags: list[str] = []

    def train(plan: Any, number: int, chosen: dict[str, Any], parent: str) -> float | None:
        tags.append(chosen["model.init_args.tag"])
        if tags[-1] == "stop":
            raise KeyboardInterrupt
        return None if tags[-1] == "fail" else float(len(tags[-1]))

    monkeypatch.setattr(sweep, "train", train)
    return tags


def parent() -> Any:
    [run] = [run for run in runs(Path("runs")) if run.data.tags.get("kind") == "group"]
    return run


def test_a_grid_is_summed_up_in_one_run(trained: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GRID, "--maximize"]) == 0
    assert trained == ["a", "bb", "c"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["TASK", "STATE", "val/loss", "SETTINGS"]
    assert lines[1].split() == ["1", "COMPLETE", "2", "tag=bb"]
    run = parent()
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"best/val/loss": 2.0, "trials/complete": 3.0, "trials/failed": 0.0}
    assert run.data.tags["best_settings"] == "tag=bb"
    table = Path(run.info.artifact_uri.removeprefix("file://"), "trials.csv").read_text().splitlines()
    assert table == [
        "number,state,val/loss,model.init_args.tag",
        "0,COMPLETE,1.0,a",
        "1,COMPLETE,2.0,bb",
        "2,COMPLETE,1.0,c",
    ]


def test_a_training_that_fails_is_counted(trained: list[str]) -> None:
    assert main([*SWEEP, "--grid", "model.init_args.tag=fail,b"]) == 0
    assert parent().data.metrics["trials/failed"] == 1.0
    assert parent().data.tags["best_settings"] == "tag=b"


def test_a_sweep_of_failures_fails(trained: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, "--grid", "model.init_args.tag=fail"]) == 2
    assert "no training of the sweep ended with val/loss" in capsys.readouterr().err
    assert parent().info.status == "FAILED"


def test_a_stopped_sweep_goes_on(trained: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*SWEEP, "--grid", "model.init_args.tag=a,stop,c"]
    assert main(words) == 130
    first = parent()
    assert first.info.status == "KILLED"
    monkeypatch.setattr(sweep, "train", lambda plan, number, chosen, parent: trained.append(number) or 0.5)
    del trained[:]
    assert main(words) == 0
    assert trained == [1, 2]
    again = parent()
    assert again.info.run_id == first.info.run_id
    assert again.info.status == "FINISHED"
    assert again.data.metrics["trials/complete"] == 3.0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "a sweep needs something to try"),
        (["--search", "model.init_args.learning_rate=0.1..1.0"], "--trials: say how many"),
        (["--grid", "model.init_args.tag=a", "--jobs", "0"], "--jobs must be at least 1"),
        (["--grid", "a=1", "--cluster", "slurm", "--searcher", "tpe"], "--searcher tpe learns from what has ended"),
        (["--grid", "a=1", "--set", "trainer.max_epoch=1"], "unrecognized arguments: --trainer.max_epoch"),
        (["--grid", "a=1", "--config", "none.yaml"], "none.yaml: no such recipe"),
        (["--summarise"], "sweep.json: not a record of a sweep"),
    ],
)
def test_a_mistake_is_told(trained: list[str], more: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, *more]) == 2
    assert said in capsys.readouterr().err
    assert not trained


def test_a_sweep_on_a_cluster(
    trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm = StandIns(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{slurm.folder}:/usr/bin:/bin")
    slurm.add("sbatch", "42")
    search = ["--search", "model.init_args.learning_rate=0.1..1.0", "--trials", "2"]
    assert main([*SWEEP, *search, "--cluster", "slurm", "--partition", "p"]) == 0
    run = parent()
    assert run.info.status == "RUNNING"
    assert "process" not in run.data.tags
    script = (FOLDER / "job.sbatch").read_text()
    assert f"export ENCDL_PARENT_RUN={run.info.run_id}\n" in script
    assert "#SBATCH --array=0-1\n" in script
    first, second = slurm.calls("sbatch")
    assert first == ["--parsable", str((FOLDER / "job.sbatch").absolute())]
    assert second == ["--parsable", "--dependency=afterany:42", str((FOLDER / "summary.sbatch").absolute())]
    last = (FOLDER / "summary.sbatch").read_text()
    assert "#SBATCH --partition=p\n" in last
    assert last.rstrip().endswith("--name s --summarise")
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    for number, value in enumerate((0.5, 0.25)):
        key = (FOLDER / f"trials/{number}/run-key").read_text().strip()
        child = client.create_run(run.info.experiment_id, tags={RESUME_TAG: key})
        client.log_metric(child.info.run_id, "val/loss", value)
        client.set_terminated(child.info.run_id)
    capsys.readouterr()
    assert main([*SWEEP, "--summarise"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["1", "COMPLETE", "0.25"]
    assert parent().info.status == "FINISHED"
    assert parent().data.tags["best_run"] == child.info.run_id


@pytest.mark.slow
def test_real_trainings_are_children_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    make_store(tmp_path / "runs")
    Path("tiny.yaml").write_text(DRAWING % 0)
    search = ["--search", "model.init_args.learning_rate=log:1e-4..1e-1", "--trials", "3"]
    assert main([*SWEEP, *search, "--set", "trainer.max_epochs=1"]) == 0
    top = parent()
    children = [run for run in runs(Path("runs")) if run.data.tags.get("mlflow.parentRunId") == top.info.run_id]
    assert [run.info.status for run in children] == ["FINISHED"] * 3
    values = {run.info.run_id: run.data.metrics["val/loss"] for run in children}
    assert top.data.metrics["best/val/loss"] == min(values.values())
    assert values[top.data.tags["best_run"]] == min(values.values())
