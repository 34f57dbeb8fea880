"""What a reader of scans sees in prediction is what the data module showed it in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from encdl.data.base import ImageDataModule
from encdl.data.decathlon import Decathlon
from encdl.data.decathlon_volumes import DecathlonVolumes
from encdl.files import formats
from encdl.files.levels import ModalityLevels
from encdl.files.scans import load_volume
from encdl.readers.predictor import Predictor
from tests.data.test_decathlon import TASK, describe, save
from tests.reader_checkpoint import save_reader, tiny_reader, unet

SHAPE = (16, 14, 12)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for number in range(3):
        noise = np.random.default_rng(number)
        voxels = noise.integers(-900, 900, SHAPE, dtype=np.int16)
        labels = noise.integers(0, 2, SHAPE, dtype=np.uint8)
        for name, each in (("images", voxels), ("labels", labels)):
            save(tmp_path / TASK / f"{name}Tr" / f"spleen_{number}.nii.gz", each, (1.5, 1.5, 1.5), flips="xz")
    describe(tmp_path / TASK, 3)
    return tmp_path


@pytest.mark.parametrize("levels", [{"window": (-100.0, 300.0)}, {"percentiles": (5.0, 95.0)}])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Decathlon, {"size": 16, "axis": "axial"}),
        (Decathlon, {"size": 16, "axis": "coronal"}),
        (Decathlon, {"size": 14, "axis": "sagittal"}),
        (DecathlonVolumes, {"size": (16, 16, 16)}),
    ],
)
def test_prediction_sees_the_levels_of_training(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[ImageDataModule],
    settings: dict[str, Any],
    levels: dict[str, Any],
) -> None:
    data: Any = kind(TASK, str(place), **settings, **levels)  # type: ignore[call-arg]
    spec = data.spec
    kept = {"geometry": spec.geometry.to_dict(), "levels": ModalityLevels.from_dict(spec.levels).to_dict()}
    predictor = Predictor.load(save_reader(tmp_path / "r.ckpt", tiny_reader(unet), **kept))
    predictor.reader.backbone.dimensions, predictor.size = len(spec.shape), spec.shape
    seen: list[torch.Tensor] = []

    def watched(_: Path, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append(image[0])
        return torch.stack([-image[0, 0].float(), image[0, 0].float() - 255])

    monkeypatch.setattr(predictor, "_logits", watched)
    [(image, _)] = data.volumes["test"]
    volume = load_volume(image, formats.load(image))
    answer = predictor.segment(volume)
    samples = data.samples("test")
    assert len(samples) == len(seen)
    for sample, shown in zip(samples, seen, strict=True):
        assert np.abs(np.asarray(sample["image"]).astype(int) - shown.numpy()).max() <= 1  # of rounding
    assert answer.mask.shape == nibabel.load(image).shape[::-1]  # type: ignore[attr-defined]
