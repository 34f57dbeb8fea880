"""What a sweep tries, from the command line."""

from __future__ import annotations

import pytest

from encdl.cluster.sweep.space import is_grid, parse_space, settings
from encdl.utils.errors import UsageError


def test_values_and_ranges() -> None:
    space = parse_space(["a.b=x,y"], ["c=2..8", "d=log:1e-4..0.1", "e=-1.5..2"])
    assert space["a.b"].choices == ("x", "y")  # type: ignore[attr-defined]
    assert (space["c"].low, space["c"].high, type(space["c"]).__name__) == (2, 8, "IntDistribution")  # type: ignore[attr-defined]
    assert (space["d"].low, space["d"].high, space["d"].log) == (1e-4, 0.1, True)  # type: ignore[attr-defined]
    assert (space["e"].low, space["e"].log) == (-1.5, False)  # type: ignore[attr-defined]
    assert not is_grid(space)
    assert is_grid(parse_space(["a=1,2"], []))


@pytest.mark.parametrize(
    ("grid", "ranges", "said"),
    [
        ([], [], "a sweep needs something to try"),
        ([], ["a=1"], "--search a=1: give KEY=LOW..HIGH"),
        ([], ["a=x..y"], "give KEY=LOW..HIGH"),
        ([], ["a=1..1"], "the lower end must be finite and below the upper one"),
        ([], ["a=2..1"], "the lower end must be finite"),
        ([], ["a=nan..1"], "the lower end must be finite"),
        ([], ["a=0..inf"], "the lower end must be finite"),
        ([], ["a=log:0..1"], "a range of exponents begins above 0"),
        ([], ["a"], "--search a: give KEY=VALUE"),
        (["a=1,2"], ["a=1..2"], "a is there twice"),
        (["seed_everything=1,2", "data.init_args.seed=1,2"], [], "sweep over one of them"),
    ],
)
def test_a_space_that_is_none(grid: list[str], ranges: list[str], said: str) -> None:
    with pytest.raises(UsageError) as told:
        parse_space(grid, ranges)
    assert said in str(told.value)


def test_numbers_arrive_exactly() -> None:
    value = 0.1 + 0.2
    assert settings({"a": value, "b": 3, "c": "x"}) == (("a", "0.30000000000000004"), ("b", "3"), ("c", "x"))
