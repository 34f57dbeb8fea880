"""The printed tables, and the drawings."""

from __future__ import annotations

import copy
from typing import Any

import cv2
import numpy as np
import pytest

from encdl.audit.evaluation import Result, evaluate, figure_png, panel, tables
from encdl.audit.evaluation.settings import Settings
from encdl.audit.evaluation.table import DAMAGE_WORDS, REPAIR_WORDS
from encdl.ciphers.damage import DAMAGES
from encdl.ciphers.weights import LoadedCipher
from encdl.metrics.classical_repair import KINDS, REPAIRS
from tests.additive import AdditiveCipher
from tests.mni import mni_slice


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    file = tmp_path_factory.mktemp("images") / "few.npz"
    few = np.stack([mni_slice(index, 48, 40)[0, 0].numpy() for index in (80, 90)])
    np.savez(file, train_images=few, val_images=few, test_images=few)

    def load(name: str) -> LoadedCipher:
        return LoadedCipher(AdditiveCipher(), name, name)  # type: ignore[arg-type]

    settings = Settings(
        weights=["default", "other=default"], data=str(file), tune_images=0, exact_images=1, statistics_images=1, jobs=1
    )
    return evaluate(settings, load, "cpu", lambda step: None)


def test_every_damage_and_repair_has_words() -> None:
    assert set(DAMAGE_WORDS) == set(DAMAGES)
    assert set(REPAIR_WORDS) == {"none", "restored"} | {name for kind in KINDS for name in REPAIRS[kind]}


def test_tables(result: Result) -> None:
    text = tables(result.metrics)
    first, second = text.split("\n\n")
    assert first.startswith("additive ")
    assert second.startswith("other ")
    for words in (*DAMAGE_WORDS.values(), *REPAIR_WORDS.values(), "decrypted exactly: 100.0% of images", "NPCR"):
        assert words in first
    assert "content activity" not in first
    lines = {line.split("  ")[0]: line for line in first.splitlines()}
    lost = result.metrics["additive"]["quarter_lost"]
    for repair in ("none", "median", "telea", "biharmonic", "restored"):
        assert f"{lost[repair]['mean']:.1f}" in lines["a quarter lost"]


def verdicts(metrics: dict[str, Any]) -> list[str]:
    return [line for line in tables(metrics).splitlines() if line.startswith("1 % hit")]


@pytest.mark.parametrize(
    ("low", "mean", "high", "said"),
    [
        (0.5, 1.0, 1.5, "+1.0 [+0.5, +1.5] over BM3D"),
        (-0.5, 0.2, 0.9, "+0.2 [-0.5, +0.9] over BM3D  <- level"),
        (-1.5, -1.0, -0.5, "-1.0 [-1.5, -0.5] over BM3D  <- LOSES"),
        (None, -1.0, None, "-1.0 (no interval from one) over BM3D  <- LOSES"),
        (None, 1.0, None, "+1.0 (no interval from one) over BM3D"),
    ],
)
def test_where_the_network_loses_it_says_so(
    result: Result, low: float | None, mean: float, high: float | None, said: str
) -> None:
    metrics = copy.deepcopy(result.metrics)
    paired = metrics["additive"]["paired"]["salt_pepper_1pct"]
    paired |= {"best_classical": "bm3d", "low": low, "mean": mean, "high": high}
    assert verdicts(metrics)[0].endswith(said)


def drawn(png: bytes) -> np.ndarray:
    found = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return np.asarray(found)


def test_drawings(result: Result) -> None:
    one = drawn(figure_png(result.metrics, "title"))
    assert one.shape[1] == 900
    assert one.std() > 5
    assert figure_png(result.metrics, "title") == figure_png(result.metrics, "title")
    images = drawn(panel(result, 0))
    assert images.shape[1] == 4 * 200
    assert panel(result, 0) == panel(result, 0)
