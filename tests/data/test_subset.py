"""Choosing a part of a data set."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encdl.data.subset import evenly, spread


def test_all() -> None:
    assert spread("abc", None) == spread("abc", 3) == spread("abc", 9) == [0, 1, 2]
    assert spread([], None) == []


def test_more_groups_than_images_gives_one_of_each_at_equal_distances() -> None:
    assert spread(range(10), 5) == [0, 2, 4, 6, 8]
    assert spread([1, 1, 2, 2, 3, 3, 4, 4], 2) == [0, 4]


def test_small_groups_leave_their_share_to_the_others() -> None:
    assert Counter("aaaabbc"[index] for index in spread("aaaabbc", 6)) == {"a": 3, "b": 2, "c": 1}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 40))
def test_as_many_of_each_as_can_be(groups: list[int], most: int) -> None:
    found = spread(groups, most)
    assert found == sorted(set(found))
    assert len(found) == min(most, len(groups))
    sizes, chosen = Counter(groups), Counter(groups[index] for index in found)
    largest = max(chosen.values())
    assert all(chosen[group] >= min(sizes[group], largest - 1) for group in sizes)


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [0]), (2, [0, 2]), (5, [0, 1, 2, 3, 4])])
def test_evenly(count: int, expected: list[int]) -> None:
    assert evenly(range(5), count) == expected
