"""Two processes, on the CPU or on two GPUs, are one run that measures what one process would."""

from __future__ import annotations

import time
from itertools import chain
from pathlib import Path

import pytest
import torch

from tests.processes import log, run, run_ranks, start_ranks
from tests.runs import DRAWING, points, runs
from tests.stores import make_store

ENCRYPT = """
model:
  class_path: encdl.training.tasks.encrypt.EncryptTask
  init_args:
    cipher:
      class_path: encdl.ciphers.AgileCipher
      init_args: {width: 8, blocks: 1}
"""
CLASSIFY = """
model:
  class_path: encdl.training.tasks.classify.ClassifyTask
  init_args:
    view: {class_path: encdl.training.tasks.views.Ciphertext}
    backbone:
      class_path: MonaiNet
      init_args:
        network: ResNet
        arguments: {block: basic, layers: [1, 1, 1, 1], block_inplanes: [4, 4, 4, 4]}
"""
JUDGED = """
data:
  class_path: tests.tiny_task.FiveLabelled
  init_args: {batch_size: 2, eval_batch_size: 2, crop: 0}
trainer: {accelerator: cpu, enable_progress_bar: false, enable_model_summary: false, num_sanity_val_steps: 0}
"""
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
ONE = ["--trainer.devices", "1"]
ONE_STEP = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]
on_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_store(tmp_path / "runs")
    return tmp_path


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=on_gpus)])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(folder: Path, recipe: str, device: str = "gpu") -> None:
    (folder / "tiny.yaml").write_text(recipe.replace("accelerator: cpu", f"accelerator: {device}"))


def close(one: list[tuple[int, float]], other: list[tuple[int, float]], relative: float = 1e-4) -> bool:
    """The same steps, and values that differ by the order of additions."""
    assert [step for step, _ in one] == [step for step, _ in other]
    return [value for _, value in one] == pytest.approx([value for _, value in other], rel=relative, abs=1e-5)


def test_two_processes_train_in_one_run_under_keys_of_their_own(folder: Path, device: str) -> None:
    write(folder, DRAWING % 0, device)
    words = ["fit", "--config", "tiny.yaml", "--model.init_args.keys_file", "keys"]
    assert run_ranks([*words, *TWO], folder) == [0, 0], log(folder)
    [one] = runs(folder / "runs")
    assert one.info.status == "FINISHED"
    name = "cpu" if device == "cpu" else torch.cuda.get_device_name()
    assert one.data.tags["device"] == f"2 x {name}"
    assert [step for step, _ in points(folder / "runs", one.info.run_id)["train/loss"]] == [*range(24)]
    keys = [Path(folder, f"keys-{rank}").read_text().split() for rank in range(2)]
    assert [len(mine) for mine in keys] == [48, 48]
    assert len(set(chain(*keys))) == 96


@pytest.mark.parametrize("task", [ENCRYPT, CLASSIFY], ids=["encrypt", "classify"])
def test_two_processes_measure_what_one_does(folder: Path, device: str, task: str) -> None:
    """Five images in batches of two: one of two processes has nothing to do in the last turn."""
    write(folder, task + JUDGED, device)
    words = ["--config", "tiny.yaml"]
    training = ["fit", *words, "--resume", "place", *ONE, *ONE_STEP, "--trainer.limit_val_batches", "0"]
    assert run(training, folder) == 0, log(folder)
    judging = ["validate", *words, "--ckpt_path", "place/last.ckpt"]
    assert run([*judging, *ONE], folder) == 0, log(folder)
    assert run_ranks([*judging, *TWO], folder) == [0, 0], log(folder)
    _, alone, together = (points(folder / "runs", each.info.run_id) for each in runs(folder / "runs"))
    assert set(alone) == set(together)
    assert len(alone) > 5
    for name, values in alone.items():
        assert close(values, together[name], 1e-5 if device == "cpu" else 1e-4), name


@pytest.mark.parametrize("task", [ENCRYPT, CLASSIFY], ids=["encrypt", "classify"])
def test_two_processes_log_every_other_step(folder: Path, device: str, task: str) -> None:
    write(folder, task + JUDGED, device)
    often = ["--trainer.max_epochs", "6", "--trainer.limit_train_batches", "1", "--trainer.log_every_n_steps", "2"]
    words = ["fit", "--config", "tiny.yaml", *TWO, *often, "--trainer.limit_val_batches", "0"]
    assert run_ranks(words, folder) == [0, 0], log(folder)
    [one] = runs(folder / "runs")
    assert [step for step, _ in points(folder / "runs", one.info.run_id)["train/loss"]] == [1, 3, 5]


def test_fewer_images_than_processes(folder: Path) -> None:
    write(folder, ENCRYPT + JUDGED.replace("FiveLabelled", "OneImage"), "cpu")
    assert run_ranks(["validate", "--config", "tiny.yaml", *TWO], folder) == [2, 2]
    assert "1 images cannot be judged by 2 processes: set trainer.devices to 1 or less" in log(folder)


@on_gpus
@pytest.mark.parametrize(("shared", "alike"), [("true", True), ("false", False)])
def test_batch_norm_is_shared(folder: Path, shared: str, alike: bool) -> None:
    """In a step on four images, two a GPU, batch norm sees all four, as one process does."""
    recipe = CLASSIFY.replace("Ciphertext", "Plaintext") + JUDGED.replace("FiveLabelled", "FourLabelled")
    write(folder, recipe)
    words = ["fit", "--config", "tiny.yaml", *ONE_STEP, "--trainer.limit_val_batches", "0"]
    words += ["--trainer.sync_batchnorm", shared, "--resume"]
    assert run([*words, "one", "--data.init_args.batch_size", "4", *ONE], folder) == 0, log(folder)
    assert run_ranks([*words, "two", *TWO], folder) == [0, 0], log(folder)
    one, two = (
        torch.load(folder / place / "last.ckpt", weights_only=True, map_location="cpu")["state_dict"]
        for place in ("one", "two")
    )
    statistics = [name for name in one if name.endswith(("running_mean", "running_var"))]
    assert len(statistics) > 10
    assert alike == all(torch.allclose(one[name], two[name], rtol=1e-3, atol=1e-5) for name in statistics)


@on_gpus
def test_a_training_on_two_gpus_survives_a_kill(folder: Path) -> None:
    write(folder, DRAWING % 0.2)
    words = ["fit", "--config", "tiny.yaml", "--resume_every", "2", *TWO, "--resume"]
    assert run_ranks([*words, "whole"], folder) == [0, 0], log(folder)
    processes = start_ranks([*words, "place"], folder)
    while not Path(folder, "place", "last.ckpt").is_file():
        assert all(process.is_alive() for process in processes), log(folder)
        time.sleep(0.05)
    for process in processes:
        process.kill()
        process.join()
    kept = torch.load(folder / "place" / "last.ckpt", weights_only=True, map_location="cpu")["global_step"]
    assert 0 < kept < 24
    assert run_ranks([*words, "place"], folder) == [0, 0], log(folder)
    whole, again = runs(folder / "runs")
    assert [whole.info.status, again.info.status] == ["FINISHED"] * 2
    expected, found = (points(folder / "runs", each.info.run_id) for each in (whole, again))
    assert set(expected) == set(found)
    assert all(close(values, found[name]) for name, values in expected.items())
