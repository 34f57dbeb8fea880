from __future__ import annotations

import os
from pathlib import Path

import pytest
from mlflow import MlflowClient

from encdl.training.tracking import PARENT_VARIABLE, RunGroup, RunLogger
from tests.stores import make_store
from tests.training.tracking.test_logger import fit


@pytest.fixture(autouse=True)
def no_store_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv(PARENT_VARIABLE, raising=False)


def test_runs_join_the_group_that_they_start_in(tmp_path: Path) -> None:
    root = make_store(tmp_path / "runs")
    note = tmp_path / "record.json"
    note.write_text("{}")
    with RunGroup("study", "bars", root, {"seeds": 2}, {"data": "bars"}) as group:
        child = RunLogger("encdl", root)
        fit(tmp_path, child)
        group.log({"test/accuracy": 0.5}, note)
    alone = RunLogger("encdl", root)
    assert alone.run_id
    client = MlflowClient(group.logger.tracking_uri)
    parent, run = client.get_run(group.run_id), client.get_run(child.run_id)
    assert run.data.tags["mlflow.parentRunId"] == group.run_id
    assert run.info.experiment_id == parent.info.experiment_id
    assert child.name == "study"  # checkpoints go to the folder of the experiment that the run is in
    assert "mlflow.parentRunId" not in client.get_run(alone.run_id).data.tags
    assert parent.info.status == run.info.status == "FINISHED"
    assert parent.info.run_name.startswith("bars, 20")
    assert parent.data.params == {"seeds": "2"}
    assert parent.data.metrics == {"test/accuracy": 0.5}
    assert [file.path for file in client.list_artifacts(group.run_id)] == ["record.json"]


@pytest.mark.parametrize(("error", "status"), [(ArithmeticError("oh no"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_group_that_breaks_says_so(tmp_path: Path, error: BaseException, status: str) -> None:
    root = make_store(tmp_path)
    with pytest.raises(type(error)), RunGroup("study", "bars", root) as group:
        raise error
    run = MlflowClient(group.logger.tracking_uri).get_run(group.run_id)
    assert run.info.status == status
    assert run.data.tags["ended_by"].startswith(type(error).__name__)
    assert PARENT_VARIABLE not in os.environ


def test_a_group_goes_on(tmp_path: Path) -> None:
    root = make_store(tmp_path)
    with pytest.raises(ArithmeticError), RunGroup("study", "bars", root, {"seeds": 2}) as first:
        raise ArithmeticError
    first.log({"test/accuracy": 0.75})
    with RunGroup("study", "bars", root, {"seeds": 2}, run_id=first.run_id) as again:
        assert MlflowClient(first.logger.tracking_uri).get_run(first.run_id).info.status == "RUNNING"
        again.log({"test/accuracy": 0.5})  # of more seeds
    run = MlflowClient(first.logger.tracking_uri).get_run(first.run_id)
    assert again.run_id == first.run_id
    assert run.info.status == "FINISHED"
    assert "ended_by" not in run.data.tags
    assert run.data.metrics == {"test/accuracy": 0.5}
    with RunGroup("study", "bars", root, run_id="0" * 32) as other:
        assert other.run_id not in {first.run_id, "0" * 32}


def test_without_its_parent_a_run_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARENT_VARIABLE, "0" * 32)
    logger = RunLogger("encdl", make_store(tmp_path))
    run = MlflowClient(logger.tracking_uri).get_run(logger.run_id)
    assert "mlflow.parentRunId" not in run.data.tags
    assert logger.name == "encdl"
