"""How the figures of many trainings become one record."""

from __future__ import annotations

import pytest

from encdl.audit.studies.rows import assemble, by_row, over_seeds, table
from encdl.training.judged_units import UNITS


def test_logged_figures_are_sorted_by_row_and_damage() -> None:
    logged = {
        "test/loss": 1.0, "test/accuracy": 0.9,
        "test/accuracy/ciphertext": 0.9, "test/auroc/ciphertext": 0.95, "test/accuracy/wrong_key": 0.3,
        "test/accuracy/ciphertext/gaussian_2": 0.8, "test/dice_class/left_ventricle": 0.7,
    }  # fmt: skip
    figures, damaged = by_row(logged, "ciphertext")
    assert figures == {
        "ciphertext": {"accuracy": 0.9, "auroc": 0.95, "dice_left_ventricle": 0.7},
        "wrong_key": {"accuracy": 0.3},
    }
    assert damaged == {"gaussian_2": {"ciphertext": {"accuracy": 0.8}}}
    assert by_row({"test/accuracy/wrong_key": 0.5}, "fixed_key")[0] == {"fixed_key_wrong_key": {"accuracy": 0.5}}


def test_seeds_are_summarised_leaf_by_leaf() -> None:
    merged = over_seeds([{"a": {"b": 1}, "c": 2.0}, {"a": {"b": 3}, "c": float("inf")}])
    assert merged["a"]["b"] == {"mean": 2.0, "std": pytest.approx(2**0.5), "values": [1.0, 3.0]}
    assert merged["c"]["mean"] is None


def test_parts_become_one_record() -> None:
    parts = [
        {
            "row": row, "seed": seed, "figures": {row: {"accuracy": 0.5 + seed / 10}},
            "damaged": {"crop": {row: {"accuracy": 0.4}}}, "leakage_psnr_db": {row: {"stem": 20.0 + seed}},
        }
        for seed in (1, 0)
        for row in ("plaintext", "ciphertext")
    ]  # fmt: skip
    metrics = assemble(parts)
    assert set(metrics) == {"plaintext", "ciphertext", "robustness", "leakage_psnr_db"}
    assert metrics["plaintext"]["accuracy"]["values"] == [0.5, 0.6]  # in the order of the seeds
    assert set(metrics["robustness"]["crop"]) == {"plaintext", "ciphertext"}
    assert metrics["leakage_psnr_db"]["ciphertext"]["stem"]["mean"] == 20.5
    assert "ciphertext  accuracy 0.5500 ± 0.0707" in table(metrics)


@pytest.mark.parametrize("unit", UNITS)
def test_the_figures_of_patients_are_paired(unit: str) -> None:
    missing = float("nan")  # an image without any class
    values = {"plaintext": [0.8, 0.9, 0.7, 0.9], "functional": [0.7, 0.8, 0.6, missing]}
    parts = [
        {
            "row": row, "seed": seed, "figures": {}, "damaged": {}, "leakage_psnr_db": {},
            unit: {"figure": "dice", "names": list("aabc"), "values": [each + seed / 10 for each in values[row]]},
        }
        for seed in (0, 1)
        for row in values
    ]  # fmt: skip
    found = assemble(parts)[unit]
    assert (found["figure"], found["count"]) == ("dice", 2)
    assert found["rows"]["plaintext"]["mean"] == pytest.approx(0.85)
    gap = found["less_plaintext"]["functional"]
    assert [gap[name] for name in ("mean", "low", "high")] == pytest.approx([-0.1] * 3)
    assert list(found["less_plaintext"]) == ["functional"]
    assert f"functional less plaintext, over 2 {unit}: -0.1000" in table({"plaintext": {}, unit: found})
