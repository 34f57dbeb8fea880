"""Dealing files out to training, validation and test, so that what belongs together stays together."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, Literal, TypeAlias

from encdl.data.base import Split
from encdl.utils.errors import DataError

SPLITS: tuple[Split, ...] = ("train", "val", "test")
_NAMES: dict[str, Split] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip
Group: TypeAlias = Literal["file", "prefix", "folder"]
"""The units that a split must not tear apart: nothing but the file, files whose names start alike, or a sub-folder."""
GROUPS: dict[Group, str] = {
    "file": "images",
    "prefix": "beginnings of file names (up to the first `_`)",
    "folder": "sub-folders with images",
}


def split_of(folder: str) -> Split | None:
    """The split that a folder's name stands for, in whatever case."""
    return _NAMES.get(folder.lower())


def split_folders(root: Path) -> dict[Split, Path]:
    """The sub-folders that are splits; none unless training is one.

    Raises:
        DataError: Two of them are the same split.
    """
    found: dict[Split, Path] = {}
    for path in sorted(root.iterdir()):
        split = split_of(path.name) if path.is_dir() else None
        if split in found:
            raise DataError(f"{root}: has {found[split].name} and {path.name} for one split: rename one of them")
        if split is not None:
            found[split] = path
    return {split: found[split] for split in SPLITS if split in found} if "train" in found else {}


def group_name(path: PurePath, group: Group) -> str:
    """The name that files of one group share, from a path below the data set's folder."""
    if group == "file":
        return path.as_posix()
    member = path.parent if group == "folder" else path.parent / path.stem.partition("_")[0]
    return member.as_posix()


def deal(names: Iterable[str], shares: Mapping[Split, float]) -> dict[Split, list[str]]:
    """Deal names out in an order that depends only on a hash of each.

    Args:
        names: Distinct names, in any order.
        shares: Share of the names for each split but training, above 0; rounded up, as long as one name remains
            for each split that comes after it, and for training.

    Returns:
        The names of each split, training among them.
    """
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode(errors="surrogateescape")).digest())
    parts: dict[Split, list[str]] = {}
    left = order
    for later, (split, share) in zip(range(len(shares), 0, -1), shares.items(), strict=True):
        count = max(0, min(math.ceil(share * len(order)), len(left) - later))
        parts[split], left = left[:count], left[count:]
    return {"train": left, **parts}


def torn(parts: Mapping[Split, Iterable[Any]]) -> str | None:
    """The first group that occurs in two splits, if there is one."""
    seen: dict[str, Split] = {}
    for split, names in parts.items():
        for name in sorted({str(name) for name in names}):
            if seen.setdefault(name, split) != split:
                return name
    return None
