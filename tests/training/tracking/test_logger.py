"""Runs in MLflow: what is recorded, how a run ends, and how it goes on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from mlflow import MlflowClient

from encdl.training.tracking import RunLogger, RunRecord, flatten, run_id_of
from encdl.utils.errors import UsageError
from encdl.utils.records import commit
from tests.stores import make_store
from tests.tiny_task import TinyData, TinyTask


def fit(
    root: Path, logger: Any, task: TinyTask | None = None, more: Sequence[Callback] = (), **settings: Any
) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=str(root),
        logger=logger,
        callbacks=[RunRecord(), *more],
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **settings,
    )
    trainer.fit(task or TinyTask(), TinyData(batch_size=4, crop=8, augment=False))
    return trainer


def test_a_fit_is_one_finished_run(tmp_path: Path) -> None:
    root = tmp_path / "folder with spaces"
    logger = RunLogger("tiny", make_store(root))
    trainer = fit(root, logger)
    client = MlflowClient(logger.tracking_uri)
    [experiment] = [each for each in client.search_experiments() if each.name == "tiny"]
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == logger.run_id
    assert run.info.status == "FINISHED"
    assert run.info.run_name.startswith("Tiny TinyData")
    assert "20" in run.info.run_name.rpartition(", ")[2]
    assert {"train/loss", "val/exact_fraction", "system/cpu_utilization_percentage"} <= set(run.data.metrics)
    tags = run.data.tags
    assert (tags["task"], tags["data"], tags["stage"]) == ("TinyTask", "TinyData", "fit")
    assert tags["device"] == "1 x cpu"
    assert tags["commit"] == commit()
    assert "torch " in tags["versions"]
    assert {"host", "process"} <= set(tags)
    inputs = {each.dataset.name: each for each in run.inputs.dataset_inputs}
    assert set(inputs) == {"TinyData train", "TinyData val"}
    assert {len(each.dataset.digest) for each in inputs.values()} == {32}
    profile = json.loads(inputs["TinyData train"].dataset.profile)
    assert (profile["pictures"], profile["height"]) == (8, 16)
    assert [tag.value for tag in inputs["TinyData val"].tags] == ["validation"]
    checkpoint = Path(trainer.checkpoint_callback.best_model_path)  # type: ignore[union-attr]
    assert checkpoint.parent == root / "tiny" / run.info.run_id / "checkpoints"
    assert run_id_of(checkpoint) == run.info.run_id


@pytest.mark.parametrize(
    ("fails", "error", "status"), [("oh no", ArithmeticError, "FAILED"), ("stop", SystemExit, "KILLED")]
)
def test_a_run_that_breaks_says_so(
    tmp_path: Path, fails: str, error: type[BaseException], status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On an interrupt Lightning switches Ctrl-C off for the rest of the process.
    monkeypatch.setattr("lightning.pytorch.trainer.call.signal.signal", lambda *args: None)
    logger = RunLogger(root=make_store(tmp_path))
    with pytest.raises(error):
        fit(tmp_path, logger, TinyTask(fails=fails))
    run = MlflowClient(logger.tracking_uri).get_run(logger.run_id)
    assert run.info.status == status
    kind = "KeyboardInterrupt" if fails == "stop" else "ArithmeticError: oh no"
    assert run.data.tags["ended_by"].startswith(kind)
    fit(tmp_path, RunLogger(root=str(tmp_path), run_id=logger.run_id))
    run = MlflowClient(logger.tracking_uri).get_run(logger.run_id)
    assert run.info.status == "FINISHED"
    assert "ended_by" not in run.data.tags


def test_a_name_that_was_chosen_stays(tmp_path: Path) -> None:
    logger = RunLogger("tiny", make_store(tmp_path), run_name="mine")
    fit(tmp_path, logger)
    assert MlflowClient(logger.tracking_uri).get_run(logger.run_id).info.run_name == "mine"


def test_configuration_is_recorded_once(tmp_path: Path) -> None:
    logger = RunLogger(root=make_store(tmp_path))
    logger.log_config({"data": {"crop": 64, "sizes": [1, 2], "none": None}, "calls": [{"a": 1}]}, "crop: 64\n")
    logger.log_hyperparams({"crop": 64})
    run = MlflowClient(logger.tracking_uri).get_run(logger.run_id)
    assert run.data.params == {"data.crop": "64", "data.sizes": "[1, 2]", "calls.0.a": "1"}
    assert Path(run.info.artifact_uri.removeprefix("file://"), "config.yaml").read_text() == "crop: 64\n"


def test_hyperparameters_are_recorded_without_a_configuration(tmp_path: Path) -> None:
    logger = RunLogger(root=make_store(tmp_path))
    logger.log_hyperparams({"crop": 64})
    assert MlflowClient(logger.tracking_uri).get_run(logger.run_id).data.params == {"crop": "64"}


def test_a_continued_run_keeps_its_settings_and_notes_changes(tmp_path: Path) -> None:
    first = RunLogger(root=make_store(tmp_path))
    first.log_config({"steps": 1, "crop": 64}, "first")
    first.finalize()
    again = RunLogger(root=str(tmp_path), run_id=first.run_id)
    again.log_config({"steps": 2, "crop": 64, "new": 3}, "again")
    run = MlflowClient(first.tracking_uri).get_run(first.run_id)
    assert run.data.params == {"steps": "1", "crop": "64", "new": "3"}
    assert run.data.tags["resumed_with"] == '{"steps": "2"}'
    artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
    assert {file.name: file.read_text() for file in artifacts.iterdir()} == {
        "config.yaml": "first",
        "config-resumed.yaml": "again",
    }


def test_resume_takes_only_runs_that_the_store_has(tmp_path: Path) -> None:
    first = RunLogger(root=make_store(tmp_path))
    run_id = first.run_id
    other = RunLogger(root=str(tmp_path))
    other.resume("0" * 32)
    assert other.run_id != "0" * 32
    third = RunLogger(root=str(tmp_path))
    third.resume(str(run_id))
    assert third.run_id == run_id


def test_unknown_run_and_unusable_store_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^cannot open the MLflow store sqlite:.*abc not found$"):
        RunLogger(root=make_store(tmp_path), run_id="abc")
    with pytest.raises(UsageError, match=r"^cannot open the MLflow store nonsense://"):
        RunLogger(root=str(tmp_path), tracking_uri="nonsense://x")


def test_store_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"sqlite:///{tmp_path / 'other.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert RunLogger(root=str(tmp_path / "unused")).tracking_uri == uri
    assert not (tmp_path / "unused").exists()


def test_two_roots_in_one_process(tmp_path: Path) -> None:
    first = RunLogger(root=make_store(tmp_path / "a"))
    assert first.run_id  # MLflow now names this store in the environment
    second = RunLogger(root=make_store(tmp_path / "b"))
    assert second.tracking_uri == f"sqlite:///{tmp_path / 'b' / 'mlflow.db'}"


def test_training_works_without_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    trainer = fit(tmp_path, logger=False)
    checkpoint = trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    assert run_id_of(checkpoint) is None


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_text("no")
    with pytest.raises(UsageError, match=r"x\.ckpt is not a checkpoint that can be read"):
        run_id_of(tmp_path / "x.ckpt")


def test_flatten_leaves() -> None:
    assert dict(flatten({"a": {"b": [], "c": [{"d": True}]}, "e": "x" * 999})) == {
        "a.b": "[]",
        "a.c.0.d": "True",
        "e": "x" * 500,
    }
