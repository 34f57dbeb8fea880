"""`encdl fit` and its kin: from a YAML file to a run, and from a mistake to one line."""

from __future__ import annotations

import os
import pickle
import re
import shlex
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from encdl.cli import main as encdl
from encdl.training import mistakes
from encdl.training.cli import OVERVIEW, check, main
from encdl.training.parallel import synchronised
from encdl.utils.errors import DataError, UsageError
from tests.stores import make_store
from tests.tiny_task import TinyData, TinyTask

CONFIG = """
model:
  class_path: tests.tiny_task.TinyTask
  init_args:
    cipher: {class_path: tests.tiny_task.Shift, init_args: {start: 0.5}}
    shape: {map: tent}
data:
  class_path: tests.tiny_task.TinyData
  init_args: {batch_size: 4, crop: 8, augment: false}
trainer:
  accelerator: cpu
  max_epochs: 1
  enable_progress_bar: false
  logger:
    class_path: encdl.training.tracking.RunLogger
    init_args: {experiment_name: tiny}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration file, in an empty folder that is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    make_store(tmp_path / "runs")
    file = tmp_path / "tiny.yaml"
    file.write_text(CONFIG)
    return str(file)


def runs(folder: str = "runs") -> list[Any]:
    client = MlflowClient(f"sqlite:///{Path(folder).absolute()}/mlflow.db")
    return list(client.search_runs([each.experiment_id for each in client.search_experiments()]))


def artifacts(run: Any) -> set[str]:
    """What a run keeps, but for the copies of its panels that MLflow's comparison shows."""
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    found = {str(file.relative_to(folder)) for file in folder.rglob("*.*")}
    return {name for name in found if not name.startswith("images/")}


def test_fit_makes_one_run_with_everything(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", config]) == 0
    [run] = runs()
    assert run.info.status == "FINISHED"
    assert artifacts(run) == {"config.yaml", "panels/step-00000002.png"}
    [copy] = Path(run.info.artifact_uri.removeprefix("file://"), "images").glob("*.png")
    assert copy.name.startswith("panel+step+2+")  # MLflow's own naming
    parameters = run.data.params
    assert parameters["model.init_args.cipher.init_args.start"] == "0.5"
    assert parameters["model.init_args.shape.map"] == "tent"
    assert parameters["data.init_args.crop"] == "8"
    assert parameters["seed_everything"] == "0"
    assert not any("instantiator" in name or name.startswith("cipher") for name in parameters)
    assert "system/system_memory_usage_percentage" in run.data.metrics
    assert run.info.run_id in capsys.readouterr().out
    names = {file.name for file in Path("runs/tiny", run.info.run_id, "checkpoints").iterdir()}
    assert names == {"last.ckpt", "epoch=0-step=2.ckpt"}


def test_the_recorded_configuration_runs_again(config: str) -> None:
    main(["fit", "--config", config])
    [run] = runs()
    recorded = Path(run.info.artifact_uri.removeprefix("file://"), "config.yaml")
    assert main(["fit", "--config", str(recorded)]) == 0
    first, second = runs()
    assert first.data.params == second.data.params


def test_fit_goes_on_in_the_same_run(config: str) -> None:
    main(["fit", "--config", config])
    [run] = runs()
    last = Path("runs/tiny", run.info.run_id, "checkpoints", "last.ckpt")
    main(["fit", "--config", config, "--trainer.max_epochs", "2", "--ckpt_path", str(last)])
    [again] = runs()
    assert again.info.run_id == run.info.run_id
    assert again.info.status == "FINISHED"
    assert again.data.tags["resumed_with"] == '{"trainer.max_epochs": "2"}'
    assert torch.load(last, weights_only=True)["global_step"] == 4


def test_the_same_command_goes_on_and_then_has_nothing_to_do(config: str) -> None:
    words = ["fit", "--config", config, "--resume", "place", "--resume_every", "1"]
    for _ in range(2):
        assert main([*words, "--trainer.max_epochs", "2"]) == 0
    [run] = runs()
    assert run.info.status == "FINISHED"
    history = MlflowClient(f"sqlite:///{Path('runs').absolute()}/mlflow.db").get_metric_history(
        run.info.run_id, "val/loss"
    )
    assert [point.step for point in history] == [1, 3]
    assert torch.load("place/last.ckpt", weights_only=True)["global_step"] == 4
    assert "resume" not in Path(run.info.artifact_uri.removeprefix("file://"), "config.yaml").read_text()
    assert not any("resume" in name for name in run.data.params)


def test_a_log_tells_of_the_training_and_nothing_else(
    config: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    words = ["fit", "--config", config, "--resume", "place", "--trainer.enable_progress_bar", "null"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "epoch 1 of 1, step 2, 0 min 0" in out
    assert "it/s" not in out  # no bar
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "GPU available: False" in told
    assert not any(noise in told for noise in ("weights_only", "TPU available: False", "Tip:"))


def test_two_places_to_go_on_from_are_one_too_many(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--config", config, "--trainer.logger", "false"])
    [last] = Path().rglob("last.ckpt")
    assert encdl(["fit", "--config", config, "--resume", "place", "--ckpt_path", str(last)]) == 2
    assert "--resume and --ckpt_path both say where to go on: give one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("accelerator", "cuda", "expected"),
    [("cpu", True, False), ("auto", False, False), ("auto", True, True), ("gpu", True, True), ("cuda", True, True)],
)
def test_batch_norm_is_synchronised_where_torch_can(
    accelerator: str, cuda: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert synchronised({"accelerator": accelerator, "sync_batchnorm": True}) == expected
    assert not synchronised({"accelerator": accelerator, "sync_batchnorm": False})


def test_settings_can_be_checked_alone(config: str) -> None:
    check(["fit", "--config", config])
    assert not runs()
    with pytest.raises(UsageError, match=r"unrecognized arguments: --trainer\.max_epoch 3"):
        check(["fit", "--config", config, "--trainer.max_epoch", "3"])


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_other_verbs_read_a_checkpoint(config: str, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["fit", "--config", config, "--trainer.logger", "false"])
    if verb == "test":
        monkeypatch.setattr("tests.tiny_task.TinyTask.test_step", lambda *_: torch.zeros(1), raising=False)
    [last] = Path().rglob("last.ckpt")
    assert main([verb, "--config", config, "--ckpt_path", str(last)]) == 0
    [run] = runs()
    assert run.data.tags["stage"] == verb


class Malicious:
    """Makes a folder when a careless reader unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("witness",)


@pytest.mark.parametrize("verb", ["fit", "validate"])
@pytest.mark.parametrize("kind", ["a file", "a pickle", "an address"])
def test_no_checkpoint_can_run_code(
    config: str, verb: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bad" / f"{verb}.ckpt"
    path.parent.mkdir()
    if kind == "a pickle":
        path.write_bytes(pickle.dumps(Malicious()))
    else:
        torch.save({"state_dict": {}, "callbacks": Malicious()}, path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(SimpleHTTPRequestHandler, directory=str(path.parent))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}/{path.name}" if kind == "an address" else str(path)
        with pytest.raises(UsageError, match=r"ckpt_path") as caught:
            main([verb, "--config", config, "--ckpt_path", place])
        server.shutdown()
    assert "\n" not in str(caught.value)
    assert not Path("witness").exists()


def test_reading_unsafely_is_refused(config: str) -> None:
    with pytest.raises(UsageError, match="would let a checkpoint run any code"):
        main(["fit", "--config", config, "--weights_only", "false"])


def test_fit_without_a_logger_leaves_its_settings_in_a_file(config: str) -> None:
    main(["fit", "--config", config, "--trainer.logger", "false", "--trainer.default_root_dir", "here"])
    assert "tests.tiny_task.TinyTask" in Path("here/config.yaml").read_text()
    assert not runs()
    assert main(["fit", "--config", "here/config.yaml", "--trainer.default_root_dir", "there"]) == 0


def test_own_settings_of_a_usual_callback_replace_it(config: str) -> None:
    text = (
        CONFIG + "  callbacks: {class_path: encdl.training.callbacks.ImagePanel, init_args: {every_n_validations: 2}}\n"
    )
    Path(config).write_text(text)
    main(["fit", "--config", config, "--trainer.max_epochs", "4", "--trainer.enable_checkpointing", "false"])
    [run] = runs()
    assert artifacts(run) == {"config.yaml", "panels/step-00000002.png", "panels/step-00000006.png"}
    assert not list(Path().rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trainer.max_epoch", "3"], "unrecognized arguments: --trainer.max_epoch 3"),
        (["--data.init_args.crop", "x"], "\"crop\": Expected a <class 'int'>. Got value: x"),
        (["--data.init_args.crop", "99"], "crop is 99, larger than the 16 x 16 images of TinyData"),
        (["--data.init_args.crop", "-1"], "data setting crop is -1: it must be at least 0"),
        (["--model.class_path", "no.Such"], "class_path 'no.Such': No module named 'no'"),
        (["--trainer.logger.init_args.run_id", "abc"], "Run with id=abc not found"),
        (["--config", "none.yaml"], "none.yaml: no such recipe"),
        (["--ckpt_path", "none.ckpt"], "none.ckpt: no such checkpoint"),
        (["--trainer.devices", "9999"], "trainer.devices is 9999, and this machine has "),
        (["--resume", "place", "--resume_every", "-1"], "a run cannot save its place less than never"),
        (["--resume", "tiny.yaml"], "tiny.yaml: cannot keep a run's place there"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    config: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encdl(["fit", "--config", config, *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("encdl: error: ")
    assert said in error
    assert len(error) < 300


def test_without_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert encdl(["fit"]) == 2
    assert "required" in capsys.readouterr().err


def test_help_begins_with_what_is_set_most_often(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        encdl(["fit", "--help"])
    first = capsys.readouterr().out.splitlines()[: len(OVERVIEW.splitlines()) + 3]
    assert first[0] == "usage: encdl fit --recipe NAME | --config YAML [--SETTING VALUE ...]"
    assert OVERVIEW.splitlines() == first[2:-1]


def test_what_help_names_are_settings() -> None:
    values = {
        "--resume": "place",
        "--trainer.max_epochs": "2",
        "--trainer.devices": "2",
        "--trainer.strategy": "ddp",
        "--trainer.default_root_dir": "mine",
        "--trainer.logger": "false",
        "--no-panels": "",
        "--data": "encdl.data.class_folder.ClassFolder",
        "--data.init_args.folder": "my/images",
        "--data.init_args.batch_size": "8",
        "--model.init_args.learning_rate": "1e-3",
        "--model.init_args.view": "Plaintext",
        "--seed_everything": "1",
        "--local-classes": "",
    }
    assert re.findall(r"--[a-z_.-]+", OVERVIEW.replace("NAME", "folder")) == list(values)
    recipe = Path(__file__).parents[2] / "experiments" / "classifier-folder.yaml"
    check(["fit", "--config", str(recipe), *(word for setting in values.items() for word in setting if word)])
    with pytest.raises(UsageError):
        check(["fit", "--config", str(recipe), "--model.init_args.none", "1"])


def test_a_start_that_fails_leaves_no_run(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object) -> None:
        raise DataError("scan 7 is missing")

    monkeypatch.setattr(TinyData, "samples", missing)
    with pytest.raises(DataError, match="scan 7 is missing"):
        main(["fit", "--config", config])
    assert not runs()


def test_a_failure_of_training_fails_the_run(config: str) -> None:
    with pytest.raises(ArithmeticError):
        main(["fit", "--config", config, "--model.init_args.fails", "broken"])
    [run] = runs()
    assert run.info.status == "FAILED"
    assert run.data.tags["ended_by"] == "ArithmeticError: broken"


def test_no_panels(config: str, caplog: pytest.LogCaptureFixture) -> None:
    main(["fit", "--config", config])
    assert "panels with plaintext images go into the MLflow run: --no-panels leaves them out" in caplog.text
    caplog.clear()
    main(["fit", "--config", config, "--no-panels"])
    assert "plaintext" not in caplog.text
    assert sorted(bool({"panels/step-00000002.png"} & artifacts(run)) for run in runs()) == [False, True]
    assert len({run.data.tags["config_hash"] for run in runs()}) == 1


def test_ctrl_c_names_the_checkpoint_and_the_command(
    config: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["fit", "--config", config, "--trainer.max_epochs", "2"]
    usual = TinyTask.training_step

    def step(task: TinyTask, batch: Any, batch_idx: int) -> torch.Tensor:
        if task.current_epoch == 1:
            raise KeyboardInterrupt
        return usual(task, batch, batch_idx)

    monkeypatch.setattr("lightning.pytorch.trainer.call.signal.signal", lambda *args: None)
    with monkeypatch.context() as patched:
        patched.setattr(TinyTask, "training_step", step)
        with pytest.raises(KeyboardInterrupt):
            main(words)
    [run] = runs()
    [told] = re.findall(r"to go on: encdl (.*)", caplog.text)
    assert main(shlex.split(told)) == 0
    [again] = runs()
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    assert torch.load(shlex.split(told)[-1], weights_only=True)["global_step"] == 4


def test_the_bar_counts_epochs_as_the_log_does(config: str, capfd: pytest.CaptureFixture[str]) -> None:
    more = ["--trainer.enable_progress_bar", "true", "--trainer.max_epochs", "2", "--trainer.logger", "false"]
    main(["fit", "--config", config, *more])
    shown = capfd.readouterr()
    assert "epoch 2 of 2" in shown.out + shown.err
    assert not re.search(r"Epoch \d+: +[1-9]", shown.out + shown.err)


def test_a_bug_keeps_its_traceback(config: str) -> None:
    with pytest.raises(ArithmeticError):
        main(["fit", "--config", config, "--model.init_args.fails", "bug"])


def test_interrupt_is_an_interrupt(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning.pytorch.trainer.call.signal.signal", lambda *args: None)
    with pytest.raises(KeyboardInterrupt):
        main(["fit", "--config", config, "--model.init_args.fails", "stop"])
    assert runs()[0].info.status == "KILLED"


@pytest.mark.slow  # tests/training/test_distributed.py has two ranks of processes that start at once
def test_two_processes_make_one_run(config: str) -> None:
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_epochs", "2"]
    result = run_python("-m", "encdl", "fit", "--config", config, *two)
    assert result.returncode == 0, result.stderr
    assert "Starting with 2 processes" in result.stderr + result.stdout
    [run] = runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags["device"] == "2 x cpu"
    assert artifacts(run) == {"config.yaml", "panels/step-00000001.png", "panels/step-00000002.png"}
    assert result.stdout.count("decrypted exactly") == 1


def test_a_machine_without_matplotlib_still_trains(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encdl.training.cli.find_spec", lambda name: None)
    main(["fit", "--config", config])
    [run] = runs()
    assert artifacts(run) == {"config.yaml"}


def test_a_quick_look_leaves_no_run(config: str) -> None:
    assert main(["fit", "--config", config, "--trainer.fast_dev_run", "true"]) == 0
    assert not runs()
    assert not list(Path().rglob("*.ckpt"))


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=250, check=False
    )


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("trainer.max_epochs", "x", """Parser key "trainer.max_epochs": Expected a <class 'int'>. Got value: x"""),
        ("trainer.bogus", "3", "unrecognized arguments: --trainer.bogus 3"),
        ("data", "Nope", 'Parser key "data": Expected a dot import path string: Nope'),
        ("data.init_args.batch_size", "1.5", """Parser key "batch_size": Expected a <class 'int'>. Got value: 1.5"""),
        ("data.init_args.batch", "1", "'batch'"),
    ],
)
def test_a_wrong_setting_is_told_by_name_and_cause(config: str, setting: str, value: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        check(["fit", "--config", config, f"--{setting}", value])
    assert str(caught.value).endswith(mistakes.SEE_HELP)
    assert len(str(caught.value)) < 150
