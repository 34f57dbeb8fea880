"""Grids and seeds from the command line."""

from __future__ import annotations

import pytest

from encdl.cluster.grid import parse_grid, parse_setting, told, trials, words
from encdl.utils.errors import UsageError


def test_every_combination_with_every_seed() -> None:
    grid = parse_grid(["a.b=1,2", "c=x,y"])
    found = trials(grid, 2)
    assert len(set(found)) == len(found) == 8
    assert found[0][:2] == (("a.b", "1"), ("c", "x"))
    assert dict(found[1])["model.init_args.seed"] == "1"
    assert trials({}) == [()]
    assert len(trials({}, 3)) == 3


def test_commas_that_belong_to_a_value() -> None:
    assert parse_grid(["a=[1,2],[3,4]"]) == {"a": ("[1,2]", "[3,4]")}
    assert parse_grid(['a={x: 1, y: 2},"p,q"']) == {"a": ("{x: 1, y: 2}", '"p,q"')}
    assert parse_grid(["a=b=1,c=2"]) == {"a": ("b=1", "c=2")}


@pytest.mark.parametrize("word", ["a", "=1", "a=", "a b=1", "--a=1", "a=1,,2", "a=1,", "a=1,1", "1a=2"])
def test_a_grid_that_is_none(word: str) -> None:
    with pytest.raises(UsageError, match="--grid"):
        parse_grid([word])


def test_what_is_given_twice() -> None:
    with pytest.raises(UsageError, match="a is there twice: give all its values together"):
        parse_grid(["a=1", "a=2"])
    with pytest.raises(UsageError, match="--seeds sets seed_everything, and --grid does"):
        trials({"seed_everything": ("1",)}, 2)


def test_numbers_out_of_range() -> None:
    with pytest.raises(UsageError, match="--seeds must be at least 1, got 0"):
        trials({}, 0)
    with pytest.raises(UsageError, match="the grid has 1000000 trainings"):
        trials({str(each): tuple(map(str, range(100))) for each in "abc"})


def test_words_and_short_words() -> None:
    [trial] = trials({"model.init_args.learning_rate": ("0.1",)}, 1)
    assert words(trial)[:2] == ["--model.init_args.learning_rate", "0.1"]
    assert told(trial) == "learning_rate=0.1 seed=0"
    assert parse_setting("a.b=c=d", "--set") == ("a.b", "c=d")
