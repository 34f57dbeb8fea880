"""A row of the results: its layout, its intervals, and that classical repair is run once for each damaged image."""

from __future__ import annotations

from typing import Any

import pytest

from encdl.audit.evaluation import rows
from encdl.audit.evaluation.rows import Row, measure
from encdl.ciphers.damage import DAMAGES
from encdl.data.registry import Images
from encdl.metrics.classical_repair import tuning
from encdl.metrics.quality import PSNR_CAP_DB
from tests.additive import AdditiveCipher
from tests.audit.evaluation.test_damaged import NAMES, STORAGE, images

APPLY = {
    "salt_pepper_1pct": ["none", "restored", "median", "decision_median", "telea", "biharmonic"],
    "gaussian_8": ["none", "restored", "median", "bm3d"],
    "quarter_lost": ["none", "restored", "median", "telea", "biharmonic"],
}


def judged(groups: str = "abc") -> Images:
    return Images(tuple(images()), tuple(groups), "three", 3)


def measured(*ciphers: Any, validation: Images | None = None, repairs: list[str] | None = None) -> Row:
    return measure(ciphers, STORAGE, judged(), validation, repairs, 0, map, lambda step: None)


@pytest.fixture(scope="module")
def row() -> Row:
    return measured(AdditiveCipher(), AdditiveCipher(spoils=True), AdditiveCipher())


def test_layout(row: Row) -> None:
    found = row.metrics("abc")
    assert set(found) == {*NAMES, "paired", "unhit_unchanged_fraction", "quarter_lost_exact_of_rest"}
    for damage, repairs in APPLY.items():
        assert list(found[damage]) == repairs
        for entry in found[damage].values():
            assert list(entry) == ["mean", "low", "high", "values"]
            assert len(entry["values"]) == 3
            assert sum(entry["values"]) / 3 == pytest.approx(entry["mean"])
            assert entry["low"] <= entry["mean"] <= entry["high"]


def test_training_seeds_share_keys_damage_and_classical_repair(row: Row) -> None:
    found = row.metrics("abc")
    for damage in NAMES:
        for repair, entry in found[damage].items():
            first, second, third = entry["values"]
            assert first == third
            assert (first == second) == (repair != "restored")


def test_paired_differences(row: Row) -> None:
    found = row.metrics("abc")
    for damage in NAMES:
        paired = found["paired"][damage]
        means = {name: entry["mean"] for name, entry in found[damage].items()}
        classical = {name: mean for name, mean in means.items() if name not in ("none", "restored")}
        assert classical[paired["best_classical"]] == max(classical.values())
        assert paired["mean"] == pytest.approx(means["restored"] - max(classical.values()))
        assert paired["low"] <= paired["mean"] <= paired["high"]
        assert set(paired["each"]) == {*classical, "none"}
        assert paired["each"]["none"]["mean"] == pytest.approx(means["restored"] - means["none"])


def test_what_was_not_hit_and_stays(row: Row) -> None:
    assert row.unhit == [1.0, 0.0, 1.0]
    assert row.metrics("abc")["unhit_unchanged_fraction"] == pytest.approx(2 / 3)
    assert row.exact_of_rest == {"quarter_lost": [1.0, 0.0, 1.0]}


def test_one_group_gives_no_interval(row: Row) -> None:
    entry = row.metrics("aaa")["gaussian_2"]["none"]
    assert (entry["low"], entry["high"]) == (None, None)


def test_figures_of_each_image(row: Row) -> None:
    found = row.per_image()
    assert set(found) == set(NAMES)
    for damage in NAMES:
        for repair, values in found[damage].items():
            assert len(values) == 3
            mean = row.metrics("abc")[damage][repair]["mean"]
            assert sum(values) / 3 == pytest.approx(mean, abs=0.01)


def test_repairs_are_run_once_for_the_same_damaged_images(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def noting(case: tuning.Case, name: str, parameters: Any) -> float:
        calls.append(name)
        return 1.0

    monkeypatch.setattr(rows, "score", noting)
    measured(AdditiveCipher(), AdditiveCipher(), repairs=["median"])
    assert calls == ["median"] * len(DAMAGES) * 3


def test_parameters_come_from_validation_images() -> None:
    found = measured(AdditiveCipher(), validation=judged(), repairs=["decision_median", "telea"])
    for damage, choices in found.choices.items():
        for repair, choice in choices.items():
            assert set(choice) == {"parameters", "validation_psnr_db"}
            assert repair in ("decision_median", "telea")
            assert 0 < choice["validation_psnr_db"] <= PSNR_CAP_DB
        assert list(found.scores[damage]) == ["none", "restored", *choices]
    assert "validation_psnr_db" not in measured(AdditiveCipher(), repairs=["median"]).choices["gaussian_2"]["median"]


def test_no_repairs_at_all() -> None:
    found = measured(AdditiveCipher(), repairs=["bm3d"]).metrics("abc")
    assert list(found["quarter_lost"]) == ["none", "restored"]
    assert list(found["paired"]["quarter_lost"]) == ["each"]


def test_caps_are_one() -> None:
    assert tuning.PSNR_CAP_DB == PSNR_CAP_DB
