"""A part of a data set that stands for all of it: spread over patients, clusters and the order of the file."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def spread(groups: Sequence[Hashable], most: int | None) -> list[int]:
    """Choose images, as many of each group as can be, and evenly in the order within and among groups.

    Args:
        groups: What each image belongs to: its patient, its cluster, or itself.
        most: How many images at the most; all if None.

    Returns:
        Their numbers, rising.
    """
    if most is None or most >= len(groups):
        return list(range(len(groups)))
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    quota = dict.fromkeys(members, 0)
    left = most
    while left:
        open_ = [group for group in members if quota[group] < len(members[group])]
        for group in evenly(open_, min(left, len(open_))):
            quota[group] += 1
            left -= 1
    return sorted(index for group, of in members.items() for index in evenly(of, quota[group]))


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """`count` of the items at equal distances, the first of each stretch."""
    return [items[place * len(items) // count] for place in range(count)]
