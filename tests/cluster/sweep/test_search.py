"""Optuna's study of a sweep, which a stopped sweep finds again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from encdl.cluster.sweep import search
from encdl.cluster.sweep.space import Space, parse_space
from encdl.utils.errors import UsageError

SPACE = parse_space([], ["x=-1.0..1.0"])
GRID = parse_space(["a=1,2", "b=x,y"], [])


def points(folder: Path, searcher: str, count: int, space: Space = SPACE, seed: int = 0) -> list[dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    study = search.open_study(folder, searcher, space, False, seed)
    found = []
    for _ in range(count):
        number, chosen = search.ask(study, space)
        search.tell(study, number, float(chosen.get("x", 0.0)) ** 2)
        found.append(chosen)
    return found


def test_a_grid_is_tried_once(tmp_path: Path) -> None:
    study = search.open_study(tmp_path, "grid", GRID, False, 0)
    assert search.size(study, "grid", None) == 4
    assert search.params(study.trials[3]) == {"a": "2", "b": "y"}
    assert points(tmp_path, "grid", 4, GRID) == [{"a": a, "b": b} for a in "12" for b in "xy"]
    again = search.open_study(tmp_path, "grid", GRID, False, 0)
    assert len(again.trials) == 4


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_a_seed_fixes_the_points(searcher: str, tmp_path: Path) -> None:
    first = points(tmp_path / "a", searcher, 12)
    assert first == points(tmp_path / "b", searcher, 12)
    assert first != points(tmp_path / "c", searcher, 12, seed=1)
    assert all(-1 <= point["x"] <= 1 for point in first)


def test_a_searcher_learns(tmp_path: Path) -> None:
    learnt, blind = ([abs(point["x"]) for point in points(tmp_path / by, by, 40)] for by in ("tpe", "random"))
    assert sum(learnt[20:]) < sum(blind[20:]) / 2


def test_what_was_begun_is_found_again(tmp_path: Path) -> None:
    study = search.open_study(tmp_path, "random", SPACE, False, 0)
    first, second, third = (search.ask(study, SPACE) for _ in range(3))
    search.tell(study, first[0], 1.0)
    search.tell(study, third[0], math.nan)
    again = search.existing(tmp_path)
    assert [(trial.number, search.params(trial)) for trial in search.begun(again)] == [second]
    assert [trial.state.name for trial in again.trials] == ["COMPLETE", "RUNNING", "FAIL"]


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--searcher grid takes --grid alone"):
        search.open_study(tmp_path, "grid", SPACE, False, 0)
    study = search.open_study(tmp_path, "random", SPACE, False, 0)
    for count in (None, 0):
        with pytest.raises(UsageError, match="--trials: say how many"):
            search.size(study, "random", count)
    with pytest.raises(UsageError, match="no sweep was begun here"):
        search.existing(tmp_path / "other")
