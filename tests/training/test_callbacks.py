"""Panels and the table of results."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from encdl.data.lesions import SyntheticLesionMRI
from encdl.training import callbacks
from encdl.training.callbacks import ImagePanel, ProgressLines, ResultTable
from encdl.training.panels import panel_png
from encdl.training.tracking import RunLogger
from tests.stores import make_store
from tests.tiny_task import TinyData, TinyTask


def fit(root: Path, callback: Any, task: TinyTask | None = None, **settings: Any) -> Trainer:
    trainer = Trainer(
        **{
            "accelerator": "cpu",
            "max_epochs": 3,
            "default_root_dir": str(root),
            "logger": False,
            "callbacks": callback if isinstance(callback, list) else [callback],
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "log_every_n_steps": 1,
            **settings,
        }
    )
    trainer.fit(task or TinyTask(), TinyData(batch_size=4, crop=8, augment=False))
    return trainer


def read_png(png: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR_RGB))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_panel_shows_every_column_and_a_histogram(channels: int) -> None:
    plain = torch.randint(0, 256, (4, channels, 32, 24), dtype=torch.uint8)
    columns = {"plain": plain, "ciphertext": plain.flip(0), "decrypted": plain}
    drawn = read_png(panel_png(columns, "title", rows=2))
    assert drawn.shape == (2 * 225 + 50, 4 * 200, 3)
    captioned = panel_png(columns, "title", rows=2, captions=["is none\nciphertext: none, 93%", "is lesion"])
    assert read_png(captioned).shape == drawn.shape
    assert captioned != panel_png(columns, "title", rows=2)
    fewer = read_png(panel_png({"plain": plain, "decrypted": plain}, "title", rows=9))
    assert fewer.shape == (4 * 225 + 50, 2 * 200, 3)


def test_panel_keeps_levels() -> None:
    grey = torch.full((1, 1, 8, 8), 77, dtype=torch.uint8)
    drawn = read_png(panel_png({"plain": grey}))
    assert (drawn == 77).all(axis=-1).mean() > 0.3


def test_panel_is_the_same_twice() -> None:
    columns = {"plain": torch.zeros(1, 1, 8, 8, dtype=torch.uint8)}
    assert panel_png(columns) == panel_png(columns)


@pytest.mark.parametrize("columns", [{}, {"plain": torch.zeros(0, 1, 8, 8, dtype=torch.uint8)}])
def test_empty_panel(columns: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        panel_png(columns)


def test_what_must_be_said_of_the_images_stands_above_them_and_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    titles = []
    monkeypatch.setattr(TinyData, "spec", replace(TinyData().spec, note="SYNTHETIC lesions"))
    monkeypatch.setattr(callbacks, "panel_png", lambda columns, title, rows, captions: titles.append(title) or b"")
    fit(tmp_path, [ImagePanel(), ResultTable()], max_epochs=1)
    assert titles == ["TinyTask, SYNTHETIC lesions, step 2"]
    assert "TinyTask, SYNTHETIC lesions: 2 steps in" in capsys.readouterr().out
    assert SyntheticLesionMRI().spec.note == "SYNTHETIC lesions"


def test_panels_without_a_logger(tmp_path: Path) -> None:
    fit(tmp_path, ImagePanel())
    assert sorted(file.name for file in (tmp_path / "panels").iterdir()) == [
        "step-00000002.png",
        "step-00000004.png",
        "step-00000006.png",
    ]


def test_panels_go_to_the_folder_of_another_logger(tmp_path: Path) -> None:
    fit(tmp_path, ImagePanel(every_n_validations=2), logger=CSVLogger(str(tmp_path), "name"))
    panels = [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.png")]
    assert sorted(panels) == [f"name/version_0/panels/step-0000000{step}.png" for step in (2, 6)]


def test_panels_go_to_the_run(tmp_path: Path) -> None:
    logger = RunLogger(root=make_store(tmp_path))
    fit(tmp_path, ImagePanel(), max_epochs=1, logger=logger)
    [panel] = logger.experiment.list_artifacts(logger.run_id, "panels")
    assert panel.path == "panels/step-00000002.png"
    assert not (tmp_path / "panels").exists()


def test_a_task_without_panels_is_left_alone(tmp_path: Path) -> None:
    class Shy(TinyTask):
        panel = None  # type: ignore[assignment]

    fit(tmp_path, ImagePanel(), Shy(), max_epochs=1)
    assert not (tmp_path / "panels").exists()


def test_table_of_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = RunLogger(root=make_store(tmp_path))
    fit(tmp_path, ResultTable(), max_epochs=1, logger=logger)
    table = capsys.readouterr().out
    for row in (
        r"TinyTask: 2 steps in 0 min \d\d s",
        r"decrypted exactly +100\.0% of images",
        r"restored after salt pepper 1 % +29\.1 dB",
        r"wrong key +8\.9 dB",
        r"guessing the mean image +14\.6 dB",
        r"ciphertext entropy +7\.9972 of 8 bits",
        r"content activity +0\.610",
        rf"last checkpoint +{tmp_path}/encdl/{logger.run_id}/checkpoints/\S+\.ckpt",
        rf"MLflow run +{logger.run_id}",
        rf"look at it +\S*mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow\.db",
        r"and then open +http://127\.0\.0\.1:5000/#/experiments\?workflowType=machine_learning",
    ):
        assert re.search(row, table), row


def test_table_comes_after_the_progress_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, ResultTable(), max_epochs=1, enable_progress_bar=True)
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert lines[-1].strip().startswith("last checkpoint")


def test_best_is_what_a_figure_picked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, [ResultTable(), ModelCheckpoint(save_last=True)], max_epochs=1)
    table = capsys.readouterr().out
    assert "best checkpoint" not in table
    assert re.search(r"last checkpoint +\S+/last\.ckpt\n", table)
    fit(tmp_path / "picked", [ResultTable(), ModelCheckpoint(save_last=True, monitor="val/loss")], max_epochs=1)
    table = capsys.readouterr().out
    assert re.search(r"best checkpoint +\S+/epoch=0-step=2\S*\.ckpt\n", table)
    assert re.search(r"last checkpoint +\S+/last\S*\.ckpt\n", table)


@pytest.mark.parametrize(("every_s", "within"), [(60.0, False), (0.0, True)])
def test_lines_for_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str], every_s: float, within: bool) -> None:
    fit(tmp_path, ProgressLines(every_s), max_epochs=2)
    first, *lines = capsys.readouterr().out.strip().splitlines()
    assert first == "epoch 1 of 2 begins, 2 batches an epoch"
    expected = [(1, 1), (1, 2), (1, 2), (2, 3), (2, 4), (2, 4)] if within else [(1, 2), (2, 4)]
    assert len(lines) == len(expected)
    for line, (epoch, step) in zip(lines, expected, strict=True):
        assert re.match(rf"epoch {epoch} of 2, step {step}, 0 min \d\d s", line), line
    assert re.search(r", training loss \d+\.\d{4}, validation loss \d+\.\d{4}$", lines[-1])


def test_no_table_after_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = fit(tmp_path, ResultTable(), max_epochs=1)
    capsys.readouterr()
    trainer.validate(TinyTask(), TinyData(), verbose=False)
    assert capsys.readouterr().out == ""
