"""Bootstrap intervals: known answers, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from encdl.metrics.bootstrap import Interval, interval


def test_many_values_give_the_interval_of_the_normal_distribution() -> None:
    values = np.random.default_rng(0).normal(30.0, 2.0, 400)
    found = interval(list(values))
    low, high = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def coverage(groups: int, size: int, by_group: bool, trials: int = 300) -> float:
    """How often an interval holds the mean, 0, of images that are alike within a group."""
    generator = np.random.default_rng(1)
    names = np.repeat(np.arange(groups), size)
    held = 0
    for _ in range(trials):
        values = generator.normal(size=groups)[names] + 0.5 * generator.normal(size=groups * size)
        found = interval(list(values), list(names) if by_group else None, draws=1000)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 0 <= found.high
    return held / trials


@pytest.mark.parametrize(("groups", "size"), [(10, 1), (20, 5), (60, 3)])
def test_coverage(groups: int, size: int) -> None:
    assert 0.91 <= coverage(groups, size, by_group=True) <= 0.99


def test_without_the_groups_an_interval_would_be_too_narrow() -> None:
    assert coverage(20, 5, by_group=False) < 0.8


def test_equal_values_and_one_group() -> None:
    assert interval([3.0, 3.0, 3.0]) == Interval(3.0, 3.0, 3.0)
    assert interval([3.0]) == Interval(3.0, None, None)
    assert interval([1.0, 3.0], ["a", "a"]) == Interval(2.0, None, None)
    assert interval([3.0]).to_dict() == {"mean": 3.0, "low": None, "high": None}


def test_it_repeats_and_depends_on_the_seed() -> None:
    values = [float(value) for value in range(30)]
    assert interval(values) == interval(values)
    assert interval(values) != interval(values, seed=1)


def test_groups_of_several_sizes_count_by_their_images() -> None:
    found = interval([0.0] * 9 + [10.0], ["a"] * 9 + ["b"])
    assert (found.mean, found.low, found.high) == (1.0, 0.0, 10.0)


@pytest.mark.parametrize(("values", "groups"), [([], None), ([1.0], ["a", "b"])])
def test_bad_arguments(values: list[float], groups: list[str] | None) -> None:
    with pytest.raises(ValueError, match="expected values and as many groups"):
        interval(values, groups)
