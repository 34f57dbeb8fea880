"""Dealing names out to the splits."""

from __future__ import annotations

from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encdl.data.splits import deal, group_name, torn

SHARES = {"test": 0.1, "val": 0.2}


@given(st.sets(st.text(max_size=5), max_size=40))
def test_every_name_is_dealt_once_and_none_is_missing_where_there_are_enough(names: set[str]) -> None:
    parts = deal(names, SHARES)  # type: ignore[arg-type]
    dealt = [name for part in parts.values() for name in part]
    assert sorted(dealt) == sorted(names)
    assert sum(bool(part) for part in parts.values()) == min(3, len(names))
    assert parts["train"] or not names
    assert parts == deal(sorted(names, reverse=True), SHARES)  # type: ignore[arg-type]


def test_shares() -> None:
    parts = deal(map(str, range(100)), SHARES)  # type: ignore[arg-type]
    assert {split: len(part) for split, part in parts.items()} == {"train": 70, "test": 10, "val": 20}
    most = deal("abcde", {"test": 0.9})
    assert {split: len(part) for split, part in most.items()} == {"train": 1, "test": 4}
    assert deal("abc", {})["train"]


@pytest.mark.parametrize(
    ("path", "group", "name"),
    [
        ("a/p1_2.png", "file", "a/p1_2.png"),
        ("a/p1_2.png", "prefix", "a/p1"),
        ("p1.png", "prefix", "p1"),
        ("_2.png", "prefix", "."),
        ("a/b/p1_2.png", "folder", "a/b"),
        ("p1_2.png", "folder", "."),
    ],
)
def test_groups(path: str, group: str, name: str) -> None:
    assert group_name(PurePath(path), group) == name  # type: ignore[arg-type]


def test_torn() -> None:
    assert torn({"train": "aab", "val": "c", "test": ""}) is None
    assert torn({"train": "abc", "val": "dcb", "test": "e"}) == "b"
