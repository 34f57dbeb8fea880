"""Which step is kept, and when validation images are too few to say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from encdl.training.best_checkpoint import BestCheckpoint, too_few

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
