"""An evaluation as a whole: rows of weights, the record."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encdl.audit.evaluation import Settings, evaluate, load_rows, read_earlier, record
from encdl.audit.evaluation import run as module
from encdl.ciphers.weights import LoadedCipher
from encdl.files import images
from encdl.utils.errors import UsageError
from tests.additive import AdditiveCipher

QUICK = {"exact_images": 1, "statistics_images": 1, "jobs": 1}


class Other(AdditiveCipher):
    name = "other"


def load(name: str) -> LoadedCipher:
    """`x3` has four planes, `o...` is another cipher; the digit is the training seed."""
    cipher = (Other if name.startswith("o") else AdditiveCipher)(planes=4 if name == "x3" else 8)
    training = {"settings": {"seed_everything": int(name[-1])}} if name[-1].isdigit() else {}
    return LoadedCipher(cipher, "0" * 16, name, training)  # type: ignore[arg-type]


def put(path: Path, patients: list[int]) -> str:
    generator = np.random.default_rng(0)
    count = len(patients)
    np.savez(
        path,
        images=generator.integers(0, 256, (count, 12, 11), dtype=np.uint8),
        split=np.array([2] * (count - 2) + [1, 1]),
        patient=np.array([*patients[:-2], 98, 99]),
    )
    return str(path)


def made(settings: Settings, config: Path | None = None) -> dict[str, Any]:
    result = evaluate(settings, load, "cpu", lambda step: None)
    content = record(result, settings, config, "name", "cpu", time.monotonic())
    return dict(json.loads(json.dumps(content, allow_nan=False)))


def test_rows() -> None:
    rows = load_rows(["a0", "b1", "o0", "mine=a0", "other=o2"], load)
    assert {name: [one.name for one in row] for name, row in rows.items()} == {
        "additive": ["a0", "b1"],
        "other": ["o0", "o2"],
        "mine": ["a0"],
    }


def test_a_file_may_have_an_equals_sign_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lr=0.1").touch()
    assert list(load_rows(["lr=0.1"], load)) == ["additive"]


def test_two_ciphers_in_one_row() -> None:
    with pytest.raises(UsageError, match="x=o1: is a other cipher in a row of additive"):
        load_rows(["x=a0", "x=o1"], load)


def test_weights_of_different_planes(tmp_path: Path) -> None:
    settings = Settings(weights=["a0", "x3"], data=put(tmp_path / "a.npz", [1, 2, 3, 4]), **QUICK)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"take \[4, 8\] key planes"):
        evaluate(settings, load, "cpu", lambda step: None)


def test_the_record(tmp_path: Path) -> None:
    file = put(tmp_path / "a.npz", [1, 1, 2, 2, 3, 3])
    settings = Settings(weights=["a5", "a6", "a7", "o1", "o2"], data=file, tune_images=1, **QUICK)  # type: ignore[arg-type]
    content = made(settings)
    assert content["config"] == content["settings"] == settings.to_dict()
    assert content["dataset"] == f"{file}, test split: 4 images of 2 patients or clusters"
    assert content["seeds"] == [5, 6, 7]
    assert set(content["metrics"]) == {"additive", "other", "references"}
    assert [len(row) for row in content["weights"].values()] == [3, 2]
    first = content["weights"]["additive"][0]
    assert first["training"] == {"settings": {"seed_everything": 5}}
    assert {"name", "id", "cipher", "config", "training"} == set(first)
    assert content["groups"] == ["1", "1", "2", "2"]
    assert content["data"]["images"] == 4
    assert content["data"]["validation"]["images"] == 1
    assert len(content["data"]["digest"]) == 32
    assert content["damages"]["gaussian_8"] == "GaussianNoise(sigma=8.0)"
    choice = content["repairs"]["other"]["gaussian_8"]["bm3d"]
    assert set(choice["parameters"]) == {"strength", "block"}
    assert set(content["per_image"]["additive"]) == set(content["damages"])
    assert content["postprocess"]
    row = content["metrics"]["additive"]
    assert row["exact_fraction"] == 1.0
    assert row["unhit_unchanged_fraction"] == 1.0
    assert row["per_seed"]["exact_fraction"]["values"] == [1.0]
    assert {"python", "scipy", "scikit-image"} <= set(content["versions"])


def test_the_file_of_settings_is_named(tmp_path: Path) -> None:
    file = put(tmp_path / "a.npz", [1, 2, 3, 4])
    settings = Settings(weights=["a"], data=file, tune_images=0, **QUICK)  # type: ignore[arg-type]
    content = made(settings, Path("experiments/e.yaml"))
    assert content["config"] == "experiments/e.yaml"
    assert content["settings"]["data"] == file
    assert content["seeds"] == [0]
    assert content["data"]["validation"] is None


def test_a_folder_of_seven_odd_images_is_seven_images_of_their_own_size(tmp_path: Path) -> None:
    shapes = [(5, 7), (31, 2), (1, 1), (40, 33), (9, 9, 3), (17, 4), (12, 12)]
    for number, shape in enumerate(shapes):
        array = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
        images.write(tmp_path / f"{number}.png", array)
    settings = Settings(weights=["a"], data=str(tmp_path), **QUICK)  # type: ignore[arg-type]
    told: list[str] = []
    result = evaluate(settings, load, "cpu", told.append)
    assert told[0] == f"{tmp_path}: 7 images"
    assert [tuple(image.shape[1:]) for image in result.images.images] == [shape[:2] for shape in shapes]
    assert result.validation is None
    scores = result.rows["additive"].scores["quarter_lost"]
    assert {len(values) for values in scores.values()} == {1}
    assert all(len(values[0]) == 7 for values in scores.values())


def test_processes_change_nothing(tmp_path: Path) -> None:
    file = put(tmp_path / "a.npz", [1, 2, 3, 4])
    settings = {"weights": ["a"], "data": file, "tune_images": 1, "exact_images": 1, "statistics_images": 1}
    one, two = (
        evaluate(Settings(**settings, jobs=jobs), load, "cpu", lambda step: None).metrics  # type: ignore[arg-type]
        for jobs in (1, 2)
    )
    assert one == two


def test_missing_repairs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.missing_repairs() == []
    monkeypatch.setattr("encdl.metrics.classical_repair.methods.find_spec", lambda _: None)
    assert module.missing_repairs() == ["biharmonic"]


class TestEarlier:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        file = put(tmp_path / "a.npz", [1, 1, 2, 2, 3, 3])
        return Settings(weights=["a5", "a6"], data=file, repairs=["median"], tune_images=0, **QUICK)  # type: ignore[arg-type]

    @pytest.fixture
    def written(self, settings: Settings, tmp_path: Path) -> Path:
        path = tmp_path / "earlier.json"
        path.write_text(json.dumps(made(settings)))
        return path

    def test_its_rows_are_not_measured_again(
        self, settings: Settings, written: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = json.loads(written.read_text())
        measured: list[object] = []
        measure = module.measure
        monkeypatch.setattr(
            module, "measure", lambda ciphers, *rest: (measured.append(ciphers), measure(ciphers, *rest))[1]
        )
        more = replace(settings, weights=["a5", "a6", "o1"])
        result = evaluate(more, load, "cpu", lambda step: None, [read_earlier(written)])
        both = record(result, more, None, "name", "cpu", time.monotonic())
        assert len(measured) == 1
        for name in ("metrics", "per_image", "repairs"):
            assert both[name]["additive"] == content[name]["additive"]
            assert "other" in both[name]
        assert both["earlier"] == {"additive": {name: content[name] for name in ("commit", "date", "device")}}

    def test_rows_of_other_weights_are_measured(self, settings: Settings, written: Path) -> None:
        other = replace(settings, weights=["a5", "a7"])
        assert not evaluate(other, load, "cpu", lambda step: None, [read_earlier(written)]).earlier

    def test_rows_that_are_not_named_are_kept(self, settings: Settings, written: Path) -> None:
        other = replace(settings, weights=["o1"])
        result = evaluate(other, load, "cpu", lambda step: None, [read_earlier(written)])
        content = record(result, other, None, "name", "cpu", time.monotonic())
        assert [one["name"] for one in content["weights"]["additive"]] == ["a5", "a6"]
        assert content["metrics"].keys() == {"other", "additive", "references"}

    def test_another_evaluation_is_refused(self, settings: Settings, written: Path) -> None:
        with pytest.raises(UsageError, match="was measured with other images, seed, images"):
            evaluate(replace(settings, seed=1, images=3), load, "cpu", lambda step: None, [read_earlier(written)])

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"task": "evaluate"}'])
    def test_what_is_no_record_is_refused(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "r.json"
        path.write_text(content)
        with pytest.raises(UsageError, match="is no record of an evaluation"):
            read_earlier(path)
