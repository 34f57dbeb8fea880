"""The records under experiments/results: complete, quoted by a page, and as good as the project promises."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from encdl.audit.evaluation.damaged import kind_of
from encdl.audit.results import find_pages
from encdl.ciphers.damage import DAMAGES
from encdl.ciphers.weights import load
from encdl.files.settings import Settings
from encdl.metrics.classical_repair import REPAIRS

ROOT = Path(__file__).parents[3]
RECORDS = sorted((ROOT / "experiments" / "results").glob("*.json"))
EVALUATED = ("brain_tumor", "acdc", "pneumoniamnist", "embedded")
CIPHERS = ("agile", "keystream", "coupled", "thesis")


def record(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "experiments" / "results" / f"{name}.json").read_text())
    return content


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_record_says_how_it_came_about_and_is_quoted(path: Path) -> None:
    content = record(path.stem)
    assert set(content) >= {
        "name", "task", "config", "dataset", "seeds", "metrics", "wall_s", "device", "versions", "commit", "date",
    }  # fmt: skip
    assert content["name"] == path.stem
    assert content["commit"] != "unknown"
    assert not content["commit"].endswith("+changes")
    assert any(path.stem in page.read_text() for page in find_pages(ROOT)), f"no page quotes {path.name}"


@pytest.mark.parametrize("name", EVALUATED)
def test_evaluations_hold_every_cipher_damage_and_repair(name: str) -> None:
    content = record(f"evaluate-{name}")
    assert content["config"] == f"experiments/evaluate-{name}.yaml"
    assert (ROOT / content["config"]).is_file()
    assert len(content["seeds"]) == 3
    assert content["postprocess"] == Settings().postprocess
    assert content["data"]["images"] >= (10 if name == "embedded" else 100)
    assert len(content["data"]["digest"]) == len(content["data"]["validation"]["digest"]) == 32
    assert list(content["metrics"]) == [*CIPHERS, "references"]
    for cipher in CIPHERS:
        assert len(content["weights"][cipher]) == 3
        trainings = [set(one["training"]) for one in content["weights"][cipher]]
        assert all(training >= {"settings", "files", "commit"} for training in trainings)
        row = content["metrics"][cipher]
        for damage, what in DAMAGES.items():
            assert set(row[damage]) == {"none", "restored", *REPAIRS[kind_of(what)[0]]}
            for entry in row[damage].values():
                assert entry["low"] <= entry["mean"] <= entry["high"]
                assert len(entry["values"]) == 3
            choices = content["repairs"][cipher][damage].values()
            assert all("validation_psnr_db" in choice for choice in choices)


def test_pixels_that_were_not_hit_stay_as_they_are() -> None:
    """On the mean of the three real sets, when 1 % of the bytes were hit."""
    real = [record(f"evaluate-{name}") for name in EVALUATED if name != "embedded"]
    assert fmean(each["metrics"]["agile"]["unhit_unchanged_fraction"] for each in real) >= 0.999


def test_golden_ciphertexts_opened_without_a_differing_pixel() -> None:
    found = record("exactness-cuda")["metrics"]
    assert len(found["differing_pixels"]) == 6
    assert all(count == 0 for files in found["differing_pixels"].values() for count in files.values())
    assert set(found["exact_fraction"].values()) == {1.0}
    assert found["worst_case_differing"] == 0


def test_containers_of_cpu_and_gpu_did_not_differ() -> None:
    """What no machine without a GPU can try: the record that `tests.files.container.across cuda` wrote."""
    content = record("container-cuda")
    assert content["weights"] == load("default").id
    found = content["metrics"]
    assert list(found["differing_bytes"]) == ["float32", "tf32", "bfloat16", "float16", "benchmark"]
    for cases in found["differing_bytes"].values():
        assert len(cases) >= 12
        assert {count for counts in cases.values() for count in counts.values()} == {0}
    assert set(found["recorded_containers"].values()) == {0}


@pytest.mark.parametrize(
    ("name", "wanted", "floor"),
    [
        # What MedMNIST's own ResNet-18 has.
        ("pneumoniamnist", {"accuracy": 0.854, "auroc": 0.944}, ("majority_class", "accuracy")),
        ("acdc", {"dice": 0.89}, ("mean_mask", "dice")),
        ("brain_tumor", {"accuracy": 0.9, "auroc": 0.9}, ("majority_class", "accuracy")),
    ],
)
def test_baselines_are_worth_the_name(name: str, wanted: dict[str, float], floor: tuple[str, str]) -> None:
    """And what a functional key gives away is read far better than no image."""
    rows = record(f"readers-{name}")["metrics"]
    for figure, least in wanted.items():
        assert rows["plaintext"][figure]["mean"] >= least
    row, figure = floor
    assert rows["functional"][figure]["mean"] >= rows[row][figure]["mean"] + 0.2


@pytest.mark.parametrize("name", ["pneumoniamnist", "brain_tumor", "acdc"])
def test_restored_images_are_read_like_intact_ones(name: str) -> None:
    metrics = record(f"readers-{name}")["metrics"]
    figure = "dice" if name == "acdc" else "accuracy"
    intact = metrics["plaintext"][figure]["mean"]
    for damage, rows in metrics["robustness"].items():
        assert rows["restore_then_infer"][figure]["mean"] >= intact - 0.015, damage


def test_speed() -> None:
    """Every part of the bench, and keyed readers beside plain ones on a CPU."""
    assert record("bench-cpu")["metrics"]["failed"] == {}
    memory = record("readers-cost")["metrics"]["memory"]
    assert max(times["ciphertext_to_plain"] for times in memory.values()) <= 1.15


def test_the_server_refused_and_lost_nothing() -> None:
    found = record("serve-cpu")["metrics"]
    assert (found["clients"], found["errors"]) == (4, 0)
