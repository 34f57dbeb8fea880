"""Masks of volumes beside their labels, judged in the scan's own space by SimpleITK."""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from encdl.cli import main
from encdl.data.decathlon_volumes import DecathlonVolumes
from encdl.readers import KeyedStem, MonaiNet, Reader
from tests.data.test_decathlon import TASK, describe, save
from tests.reader_checkpoint import save_reader

DATA = Path(os.environ.get("ENCDL_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data")


@pytest.fixture(scope="module")
def scan_masks() -> ModuleType:
    path = Path(__file__).parents[1] / "experiments" / "scan_masks.py"
    spec = importlib.util.spec_from_file_location("scan_masks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_judged_alike(metrics: dict[str, Any]) -> None:
    assert list(metrics) == ["as_it_came", "turned", "oblique"]
    for found in metrics.values():
        assert found["dice_differ"] < 1e-6
        assert found["grids_differ"] < 1e-4
        assert found["measures_differ_ml"] < 1e-3
    came, turned = (metrics[name]["dice"]["values"] for name in ("as_it_came", "turned"))
    np.testing.assert_allclose(turned, came, atol=1e-3)  # rounding decides between classes that are alike


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SimpleITK's bindings
def test_masks_of_volumes_turned_about_and_oblique(scan_masks: ModuleType, tmp_path: Path) -> None:
    for number in range(3):
        axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in (22, 18, 14)), indexing="ij")
        ball = sum((axis - 0.1 * number) ** 2 for axis in axes) < 0.4
        for name, voxels in {"images": 900.0 * ball + 90 * axes[0], "labels": ball.astype(np.uint8)}.items():
            kind = np.uint8 if name == "labels" else np.float32
            save(tmp_path / TASK / f"{name}Tr" / f"spleen_{number}.nii.gz", voxels.astype(kind), (1.0, 1.5, 2.0), "x")
    describe(tmp_path / TASK, 3, labels={"0": "background", "1": "spleen"})
    torch.manual_seed(0)
    body = MonaiNet(4, 2, "UNet", {"channels": [4, 8], "strides": [2]}, multiple=2, dimensions=3)
    reader = Reader(KeyedStem(1, 4, 3), body).eval()
    data = DecathlonVolumes(TASK, str(tmp_path), size=(16, 24, 24))
    known = {"geometry": data.spec.geometry.to_dict(), "levels": data.levels.to_dict()}
    save_reader(tmp_path / "r.ckpt", reader, classes=list(data.classes), size=[16, 24, 24], **known)
    assert_judged_alike(scan_masks.study(tmp_path / "r.ckpt", data, tmp_path / "work"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not (DATA / "hippocampus").is_dir(), reason="the hippocampus of the Decathlon is not there")
def test_a_trained_reader_finds_the_hippocampus_where_it_is(
    scan_masks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four epochs, a few minutes of one core; the full recipe reaches .86."""
    monkeypatch.chdir(tmp_path)
    words = ["--data.data_dir", str(DATA), "--trainer.accelerator", "cpu", "--trainer.max_epochs", "4", "--no-panels"]
    words += ["--trainer.check_val_every_n_epoch", "4"]
    assert main(["fit", "--recipe", "segmenter-hippocampus", *words]) == 0
    [reader] = tmp_path.rglob("best.ckpt")
    metrics = scan_masks.study(reader, DecathlonVolumes("hippocampus", str(DATA)), tmp_path / "work")
    assert_judged_alike(metrics)
    for variant, least in {"as_it_came": 0.7, "turned": 0.7, "oblique": 0.5}.items():
        assert metrics[variant]["dice"]["mean"] > least
        assert math.isfinite(metrics[variant]["dice_anterior"]["std"])
