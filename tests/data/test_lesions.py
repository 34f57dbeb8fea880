"""Slices with synthetic lesions: what is drawn, where, and that nothing else differs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from encdl.data.base import DataSpec
from encdl.data.lesions import CLASSES, HEIGHT, SITES, WIDTH, SyntheticLesionMRI, draw_lesion, half


@pytest.fixture(scope="module")
def data() -> SyntheticLesionMRI:
    return SyntheticLesionMRI(batch_size=16, eval_batch_size=40, copies=2)


def test_spec_is_what_the_batches_hold(data: SyntheticLesionMRI) -> None:
    expected = DataSpec(1, HEIGHT, WIDTH, classes=CLASSES, spacing_mm=(2.0, 2.0), note="SYNTHETIC lesions")
    assert data.spec == expected
    data.setup("fit")
    train, val = next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))
    assert train.keys() == val.keys() == {"image", "label"}
    assert train["image"].shape == (16, 1, HEIGHT, WIDTH)
    assert val["image"].shape == (40, 1, HEIGHT, WIDTH)
    assert train["image"].dtype == val["image"].dtype == torch.uint8
    assert val["label"].tolist() == [0, 1] * 20
    assert data.class_counts().tolist() == [86, 86]


def test_the_name_says_that_lesions_are_synthetic() -> None:
    assert "synthetic" in CLASSES[1]
    assert "Synthetic" in SyntheticLesionMRI.__name__


def test_a_lesion_is_one_blob_over_white_matter(data: SyntheticLesionMRI) -> None:
    lesions = [sample for sample in data.samples("train") if sample["label"]]
    for number, sample in enumerate(lesions[::4]):
        drawn = draw_lesion(sample["image"], sample[SITES], np.random.RandomState(number))
        change = sample["image"].astype(int) - drawn
        changed = np.abs(change[0]) > 20
        assert 10 <= changed.sum() <= 600  # 40 to 2400 square millimetres
        rows, columns = np.nonzero(changed)
        assert max(np.ptp(rows), np.ptp(columns)) <= 40
        assert change.sum() > 0
        assert (drawn[sample["image"] == 0] == 0).all()
        if sample[SITES].any():
            assert sample[SITES][rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].any()


def test_draws_repeat_with_the_seed_and_differ_from_one_another(data: SyntheticLesionMRI) -> None:
    def pictures(seed: int, epoch: int) -> torch.Tensor:
        drawn = SyntheticLesionMRI(batch_size=8, repeats=1, seed=seed)
        loader = drawn.train_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        image: torch.Tensor = next(iter(loader))["image"]
        return image

    first = pictures(0, 0)
    assert torch.equal(first, pictures(0, 0))
    assert not torch.equal(first, pictures(0, 1))
    assert not torch.equal(first, pictures(1, 0))


def test_checks_are_the_same_for_every_seed(data: SyntheticLesionMRI) -> None:
    one, other = (SyntheticLesionMRI(seed=seed, copies=1).samples("test") for seed in (0, 1))
    assert len(one) == 20
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a["image"], b["image"])
        assert a["label"] == b["label"]
    distinct = {sample["image"].tobytes() for sample in data.samples("test")}
    assert len(distinct) == 40


def test_half_keeps_the_whole_brain() -> None:
    slices = SyntheticLesionMRI()._slices
    for t1, _ in slices["train"] + slices["val"] + slices["test"]:
        assert int(half(t1).sum(dtype=np.int64)) * 4 == pytest.approx(t1.sum(dtype=np.int64), rel=0.01)


def test_import_needs_no_large_library() -> None:
    code = (
        "import sys; import encdl.data.lesions as e; e.SyntheticLesionMRI().spec;"
        "print(*{'mlflow', 'monai', 'albumentations', 'nilearn'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr
