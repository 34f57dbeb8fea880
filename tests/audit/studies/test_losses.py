"""The study of losses: what is trained, how the figures are put together, and its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encdl.audit.studies.losses import LOSSES, LossPart, _figures, _sets, assemble, best, table
from encdl.ciphers.damage import DAMAGES
from encdl.data.mixture import Mixture
from tests.training.tasks.support import FewSlices


def content(loss: str, seed: int, level: float) -> dict[str, Any]:
    logged = {
        **{f"test/restored_psnr_db/{damage}": level + seed for damage in DAMAGES},
        **{f"test/unrestored_psnr_db/{damage}": 20.0 for damage in DAMAGES},
        "test/unhit_unchanged_fraction": 0.5,
        "test/loss": 3.0,
    }
    return {"row": loss, "seed": seed, "figures": {"a": _figures(logged), "b": _figures(logged)}}


def test_words_name_the_loss_and_the_seed(tmp_path: Path) -> None:
    part = LossPart("recipe.yaml", "l1", 2, str(tmp_path), ("--data.init_args.data_dir", "here"))
    words = part.words()
    assert words[:3] == ["fit", "--config", "recipe.yaml"]
    pairs = dict(zip(words[1::2], words[2::2], strict=True))
    assert pairs["--model.init_args.loss"] == "l1"
    assert {pairs[name] for name in pairs if "seed" in name} == {"2"}
    assert pairs["--data.init_args.data_dir"] == "here"


def test_metrics_by_loss_set_and_damage() -> None:
    metrics = assemble([content(loss, seed, 30.0 + len(loss)) for seed in (0, 1) for loss in LOSSES])
    assert set(metrics) == set(LOSSES)
    cell = metrics["mse"]["b"]["restored_psnr_db"]["gaussian_2"]
    assert cell == {"mean": 33.5, "std": pytest.approx(0.5**0.5), "values": [33.0, 34.0]}
    assert metrics["l1"]["a"]["unhit_unchanged_fraction"]["values"] == [0.5, 0.5]
    assert best(metrics) == "charbonnier"
    lines = table(metrics).splitlines()
    assert len(lines) == 2 * (1 + len(LOSSES)) + 1
    assert "33.50 ± 0.71" in lines[3]
    assert lines[-1].endswith("charbonnier")


def test_every_data_set_of_a_mixture_is_judged_apart(tmp_path: Path) -> None:
    images = np.zeros((3, 8, 8), np.uint8)
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", images=images, split=np.arange(3))
    assert list(_sets(Mixture({"a": 1.0, "b": 2.0}, str(tmp_path)))) == ["a", "b"]
    assert list(_sets(FewSlices())) == ["FewSlices"]
