"""Two processes are one run that measures what one process would."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from tests.processes import log, run, run_ranks
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_store(tmp_path / "runs")
    return tmp_path


def test_two_processes_train_in_one_run_under_keys_of_their_own(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(DRAWING % 0)
    words = ["fit", "--config", "tiny.yaml", "--model.init_args.keys_file", "keys"]
    assert run_ranks([*words, *TWO], folder) == [0, 0], log(folder)
    [one] = runs(folder / "runs")
    assert one.info.status == "FINISHED"
    assert one.data.tags["device"] == "2 x cpu"
    assert [step for step, _ in points(folder / "runs", one.info.run_id)["train/loss"]] == [*range(24)]
    keys = [Path(folder, f"keys-{rank}").read_text().split() for rank in range(2)]
    assert [len(mine) for mine in keys] == [48, 48]
    assert len(set(chain(*keys))) == 96


@pytest.mark.parametrize("task", [ENCRYPT, CLASSIFY], ids=["encrypt", "classify"])
def test_two_processes_measure_what_one_does(folder: Path, task: str) -> None:
    """Five images in batches of two: one of two processes has nothing to do in the last turn."""
    (folder / "judged.yaml").write_text(task + JUDGED)
    short = [
        "--trainer.limit_train_batches",
        "1",
        "--trainer.limit_val_batches",
        "0",
        "--trainer.max_epochs",
        "1",
    ]
    assert run(["fit", "--config", "judged.yaml", "--resume", "place", *short], folder) == 0, log(folder)
    words = ["validate", "--config", "judged.yaml", "--ckpt_path", "place/last.ckpt"]
    assert run(words, folder) == 0, log(folder)
    assert run_ranks([*words, *TWO], folder) == [0, 0], log(folder)
    _, alone, together = (points(folder / "runs", each.info.run_id) for each in runs(folder / "runs"))
    assert set(alone) == set(together)
    assert len(alone) > 5
    for name, [(_, value)] in alone.items():
        assert together[name][0][1] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_fewer_images_than_processes(folder: Path) -> None:
    (folder / "judged.yaml").write_text(ENCRYPT + JUDGED.replace("FiveLabelled", "OneImage"))
    assert run_ranks(["validate", "--config", "judged.yaml", *TWO], folder) == [2, 2]
    assert "1 images cannot be judged by 2 processes: set trainer.devices to 1 or less" in log(folder)
