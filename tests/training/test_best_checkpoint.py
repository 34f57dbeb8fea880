"""Which step is kept, and when validation images are too few to say."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from encdl.training.best_checkpoint import BestCheckpoint, too_few
from encdl.training.cli import main
from tests.pages.typed import commands
from tests.stores import make_store
from tests.tiny_task import TinyTask
from tests.training.test_cli import CONFIG

STEPS = {
    "the better figure": ([(0.7, 0.1), (0.9, 0.5), (0.8, 0.2)], 1),
    "of equals the least loss": ([(1.0, 0.6), (1.0, 0.2), (1.0, 0.3)], 1),
    "of all equal the latest": ([(1.0, 0.2), (1.0, 0.2)], 1),
    "a worse figure does not win by its loss": ([(0.9, 0.5), (0.8, 0.1)], 0),
}


@pytest.mark.parametrize("name", STEPS)
def test_ties_are_broken(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures, expected = STEPS[name]
    callback, kept = BestCheckpoint("val/auroc"), []
    callback.dirpath = str(tmp_path)
    monkeypatch.setattr(callback, "_save_checkpoint", lambda trainer, path: kept.append(step))
    trainer: Any = SimpleNamespace(
        strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all=True: decision),
        global_step=0,
        current_epoch=0,
        is_global_zero=True,
    )
    for step, (figure, loss) in enumerate(figures):
        trainer.callback_metrics = {"val/auroc": torch.tensor(figure), "val/loss": torch.tensor(loss)}
        if callback.check_monitor_top_k(trainer, trainer.callback_metrics["val/auroc"]):
            callback._update_best_and_save(
                trainer.callback_metrics["val/auroc"], trainer, {"epoch": torch.tensor(0), "step": torch.tensor(step)}
            )
    assert kept[-1] == expected


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([{"label": n % 2} for n in range(20)], "20 labelled images (fewer than 100)"),
        ([{"label": int(n < 3)} for n in range(120)], "3 images of class b (fewer than 10)"),
        ([{"label": n % 2} for n in range(120)], ""),
        ([{"mask": 0, "volume": n // 50} for n in range(150)], "3 volumes or images with masks (fewer than 5)"),
        ([{"mask": 0} for _ in range(5)], ""),
        ([{}], ""),
    ],
)
def test_too_few_images_to_choose_by(samples: list[dict[str, int]], told: str) -> None:
    data: Any = SimpleNamespace(raw=lambda split: samples, spec=SimpleNamespace(classes=("a", "b")))
    assert too_few(data) == told


def test_too_few_patients_to_choose_by() -> None:
    data: Any = SimpleNamespace(
        raw=lambda split: [{"label": n % 2} for n in range(120)],
        spec=SimpleNamespace(classes=("a", "b")),
        groups=lambda split: [n % 3 for n in range(120)],
    )
    assert too_few(data) == "3 patients (fewer than 20)"


class Overfits(TinyTask):
    """Does best after its third epoch."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", 1.0 + abs(self.current_epoch - 2), batch_size=len(batch["image"]))


def test_early_stopping_keeps_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the words of the documentation's command."""
    page = (Path(__file__).parents[2] / "docs" / "readers.md").read_text()
    [typed] = [each.words for each in commands(page) if "--trainer.callbacks+=EarlyStopping" in each.words]
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "runs")
    best = "  callbacks: [{class_path: BestCheckpoint, init_args: {monitor: val/loss, mode: min}}]\n"
    recipe = CONFIG.replace("tests.tiny_task.TinyTask", f"{__name__}.Overfits").replace(
        "max_epochs: 1", "max_epochs: 40"
    )
    (tmp_path / "tiny.yaml").write_text(recipe + best)
    assert main(["fit", "--config", "tiny.yaml", *[word for word in typed if word.startswith("--trainer.")]]) == 0
    out = capsys.readouterr().out
    assert re.search(r"stopped early +in epoch 8: val/loss was 1.0000, and in 5 validations no better", out)
    [kept] = tmp_path.rglob("best.ckpt")
    assert torch.load(kept, weights_only=False)["epoch"] == 2
