"""One training of a study: where it is probed, and on what device its figures say that it was trained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from encdl.audit.studies import parts
from encdl.keys.planes import PlaneSpec
from tests.training.tasks.support import tiny_cipher

GPU = torch.device("cuda", 0)


class Task:
    """Only says that it moves: a stand-in on machines without a GPU."""

    def __init__(self) -> None:
        self.device = GPU
        self.cipher, self.planes, self.classes = tiny_cipher(), PlaneSpec(), ("no", "yes")
        self.reader = SimpleNamespace(config=dict)

    def to(self, device: torch.device) -> None:
        self.device = device


class Trainer:
    """Leaves the task on the CPU after a test, as Lightning does."""

    global_step, checkpoint_callback = 3, None
    strategy = SimpleNamespace(root_device=GPU)

    def __init__(self, task: Task) -> None:
        self.task = task
        self.saved_on: torch.device | None = None

    def test(self, *_: Any, **__: Any) -> list[dict[str, float]]:
        self.task.to(torch.device("cpu"))
        return [{"test/accuracy/plaintext": 0.5}]

    def save_checkpoint(self, *_: Any, **__: Any) -> None:
        self.saved_on = self.task.device


def test_what_follows_the_test_is_done_where_training_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task()
    trainer = Trainer(task)
    monkeypatch.setattr(parts, "_leakage", lambda task, data: {"plaintext": {"probed on": str(task.device)}})
    monkeypatch.setattr(parts.records, "device_name", "the device {}".format)
    (tmp_path / "recipe.yaml").touch()
    part = parts.ReaderPart(str(tmp_path / "recipe.yaml"), "plaintext", 0, str(tmp_path))
    content = part.run(lambda words: SimpleNamespace(trainer=trainer, model=task, datamodule=None))
    assert content["device"] == "the device cuda:0"
    assert content["leakage_psnr_db"] == {"plaintext": {"probed on": "cuda:0"}}
    assert trainer.saved_on == GPU  # the checkpoint names its device too
