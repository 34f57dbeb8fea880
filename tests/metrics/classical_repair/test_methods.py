"""The table of repairs, and the choice of their parameters."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from encdl.metrics.classical_repair import KINDS, REPAIRS, available, defaults, methods, repaired
from encdl.metrics.classical_repair.methods import Kind
from encdl.metrics.classical_repair.tuning import Case, pool, psnr_db, score, tune
from encdl.utils.errors import UsageError
from tests.metrics.classical_repair.images import brain, hit, noisy, scattered, wrapped

EVERY = [(kind, name) for kind in KINDS for name in REPAIRS[kind]]


def case(kind: Kind, seed: int = 0, side: int = 64) -> Case:
    image = brain(80 + seed, side)
    lost = np.zeros(image.shape, bool)
    if kind == "hits":
        return Case(image, hit(image, 0.02, seed)[0], lost, kind)
    if kind == "noise":
        return Case(image, wrapped(noisy(image, 4.0, seed)), lost, kind, 4.0)
    lost = scattered(image, seed=seed)
    return Case(image, np.where(lost, 7, image).astype(np.uint8), lost, kind)


def test_which_repairs_apply() -> None:
    assert {kind: list(REPAIRS[kind]) for kind in KINDS} == {
        "hits": ["median", "decision_median", "telea", "biharmonic"],
        "noise": ["median", "bm3d"],
        "losses": ["median", "telea", "biharmonic"],
    }


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_each_repairs(kind: Kind, name: str) -> None:
    damaged = case(kind)
    assert score(damaged, name, defaults(kind, name)) > psnr_db(damaged.plain, damaged.damaged) + 1


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_planes_are_repaired_by_themselves(kind: Kind, name: str) -> None:
    one, two = case(kind, 0, 32), case(kind, 1, 32)
    image, lost = np.stack([one.damaged, two.damaged]), np.stack([one.lost, two.lost])
    before = image.copy()
    found = repaired(kind, name, image, lost, one.noise)
    assert np.array_equal(image, before)
    for plane, single in zip(found, (one, two), strict=True):
        assert np.array_equal(plane, repaired(kind, name, single.damaged, single.lost, single.noise))


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_defaults_are_in_the_grid(kind: Kind, name: str) -> None:
    assert defaults(kind, name) in REPAIRS[kind][name].choices()


def test_tuning_finds_the_best_point() -> None:
    cases = [case("hits", seed, 48) for seed in range(3)]
    found = tune(cases, "decision_median")
    means = {
        tuple(choice.values()): np.mean([score(one, "decision_median", choice) for one in cases])
        for choice in REPAIRS["hits"]["decision_median"].choices()
    }
    assert found.psnr_db == pytest.approx(max(means.values()))
    assert means[tuple(found.parameters.values())] == pytest.approx(found.psnr_db)
    assert tune(cases, "median").parameters == {}


def test_processes_give_the_same_and_leave_the_environment() -> None:
    cases = [case("losses", seed, 32) for seed in range(3)]
    before = dict(os.environ)
    with pool(2) as run:
        assert tune(cases, "telea", run) == tune(cases, "telea")
    assert dict(os.environ) == before


def test_nothing_large_is_imported() -> None:
    code = "import sys, encdl.metrics.classical_repair.tuning\n"
    code += "print(*{'torch', 'monai', 'mlflow', 'lightning'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


def test_without_scikit_image_biharmonic_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "biharmonic" in available("losses")
    monkeypatch.setattr(methods, "find_spec", lambda _: None)
    assert available("losses") == ["median", "telea"]


def test_psnr() -> None:
    black, grey = np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)
    assert psnr_db(black, grey) == 0.0
    assert psnr_db(black, black) == 60.0
    assert psnr_db(np.zeros((1000, 1000), np.uint8), np.eye(1000, dtype=np.uint8)[:, ::-1]) == 60.0


def test_bad_arguments() -> None:
    image, lost = np.zeros((4, 4), np.uint8), np.zeros((4, 4), bool)
    with pytest.raises(UsageError, match="bm3d: no repair of losses: there are median, telea, biharmonic"):
        repaired("losses", "bm3d", image, lost)
    for bad in ((image, lost[:2]), (image.astype(int), lost), (image[0], lost[0]), (image, image)):
        with pytest.raises(ValueError, match="expected uint8 and bool"):
            repaired("losses", "median", *bad)
