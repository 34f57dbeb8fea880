"""Trainings on two GPUs of one machine: what `test_distributed.py` and `test_kills.py` show on CPUs."""

from __future__ import annotations

import time
from itertools import chain
from pathlib import Path

import pytest
import torch

from tests.processes import log, run, run_ranks, start_ranks
from tests.runs import DRAWING, points, runs
from tests.stores import make_store
from tests.training.test_distributed import CLASSIFY, ENCRYPT, JUDGED, TWO

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
ONE = ["--trainer.devices", "1"]
ONE_STEP = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1"]


def on_gpus(recipe: str) -> str:
    return recipe.replace("accelerator: cpu", "accelerator: gpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_store(tmp_path / "runs")
    return tmp_path


def close(one: list[tuple[int, float]], other: list[tuple[int, float]], relative: float = 1e-4) -> bool:
    """The same steps, and values that differ by the order of additions on a GPU."""
    assert [step for step, _ in one] == [step for step, _ in other]
    return [value for _, value in one] == pytest.approx([value for _, value in other], rel=relative, abs=1e-5)


def test_two_gpus_train_in_one_run_under_keys_of_their_own(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(on_gpus(DRAWING % 0))
    words = ["fit", "--config", "tiny.yaml", "--model.init_args.keys_file", "keys"]
    assert run_ranks([*words, *TWO], folder) == [0, 0], log(folder)
    [one] = runs(folder / "runs")
    assert one.info.status == "FINISHED"
    assert one.data.tags["device"] == f"2 x {torch.cuda.get_device_name()}"
    assert [step for step, _ in points(folder / "runs", one.info.run_id)["train/loss"]] == [*range(24)]
    keys = [Path(folder, f"keys-{rank}").read_text().split() for rank in range(2)]
    assert [len(mine) for mine in keys] == [48, 48]
    assert len(set(chain(*keys))) == 96


@pytest.mark.parametrize("task", [ENCRYPT, CLASSIFY], ids=["encrypt", "classify"])
def test_two_gpus_measure_what_one_does(folder: Path, task: str) -> None:
    (folder / "judged.yaml").write_text(on_gpus(task + JUDGED))
    words = ["--config", "judged.yaml"]
    training = ["fit", *words, "--resume", "place", *ONE, *ONE_STEP, "--trainer.limit_val_batches", "0"]
    assert run(training, folder) == 0, log(folder)
    judging = ["validate", *words, "--ckpt_path", "place/last.ckpt"]
    assert run([*judging, *ONE], folder) == 0, log(folder)
    assert run_ranks([*judging, *TWO], folder) == [0, 0], log(folder)
    _, alone, together = (points(folder / "runs", each.info.run_id) for each in runs(folder / "runs"))
    assert set(alone) == set(together)
    assert len(alone) > 5
    assert all(close(values, together[name]) for name, values in alone.items())


@pytest.mark.parametrize(("shared", "alike"), [("true", True), ("false", False)])
def test_batch_norm_is_shared(folder: Path, shared: str, alike: bool) -> None:
    """In a step on four images, two a GPU, batch norm sees all four, as one process does."""
    recipe = CLASSIFY.replace("Ciphertext", "Plaintext") + JUDGED.replace("FiveLabelled", "FourLabelled")
    (folder / "tiny.yaml").write_text(on_gpus(recipe))
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


def test_a_training_on_two_gpus_survives_a_kill(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(on_gpus(DRAWING % 0.2))
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
