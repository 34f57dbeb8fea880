"""Records as pages see them: read once, and single values of them by a path."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from encdl.utils.errors import EncdlError

FOLDER = Path("experiments", "results")
"""Where records lie, below the root of the repository."""

COMMANDS = {
    "evaluate": "make evaluate",
    "audit": "make audit",
    "ciphertext-readers": "make ciphertext-readers",
    "losses": "encdl experiment losses --config experiments/losses.yaml",
    "readers-cost": "encdl experiment reader-cost --config experiments/classifier-brain_tumor.yaml",
    "readers": "make ciphertext-readers",
    "bench": "make bench",
    "bench-cuda": 'make bench ARGS="--device cuda"',
    "ddp": "python experiments/ddp.py",
    "levels": "python experiments/level_depth.py --data-dir DIR",
    "masks": "python experiments/scan_masks.py READER.ckpt --data-dir DIR",
    "audit-agile-accelerator": "encdl audit --config experiments/audit-accelerator.yaml",
    "serve": "make bench-serve",
    "trust-models": "encdl experiment trust-models --recipe functional-trust-models",
    "functional": "make functional-keys",
    "hit-files": "encdl experiment hit-files --recipe functional-trust-models",
    "container": "python -m tests.files.container.across",
    "exactness": "python -m tests.ciphers.golden check",
}
"""What makes a record, by the beginning of its name; the longest that fits counts."""

AGGREGATES: dict[str, Callable[[list[Any]], Any]] = {
    "mean": statistics.fmean,
    "min": min,
    "max": max,
    "sum": sum,
    "count": len,
}

SETS = {"brain_tumor": "tumours", "acdc": "ACDC", "pneumoniamnist": "pneumonia", "embedded": "MNI152"}
"""Titles of data sets in tables, by the end of a record's name."""

UNMEASURED = "not measured"


class RecordError(EncdlError):
    """A record lacks what a page asks for, or a page asks wrongly."""


class MissingRecordError(EncdlError):
    """A record does not exist yet: the page says so instead of a figure."""


def maker(name: str) -> str:
    """The command that makes a record."""
    fitting = [start for start in COMMANDS if name.startswith(start)]
    return COMMANDS[max(fitting, key=len)] if fitting else "the command that wrote it"


class Records:
    """The records of a repository.

    Args:
        root: The root of the repository.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER

    @cached_property
    def _read(self) -> dict[str, Mapping[str, Any]]:
        return {}

    def __getitem__(self, name: str) -> Mapping[str, Any]:
        """A record by its name.

        Raises:
            MissingRecordError: There is none.
            RecordError: The name is none, or the file holds no JSON object.
        """
        if not re.fullmatch(r"[a-z0-9_-]+", name):
            raise RecordError(f"{name!r} is no name of a record")
        if name not in self._read:
            path = self.folder / f"{name}.json"
            if not path.is_file():
                raise MissingRecordError(f"not measured: {FOLDER / path.name} does not exist, `{maker(name)}` makes it")
            try:
                content = json.loads(path.read_text())
            except ValueError as error:
                raise RecordError(f"{FOLDER / path.name}: {error}: make it anew: {maker(name)}") from None
            if not isinstance(content, dict):
                raise RecordError(f"{FOLDER / path.name} holds no JSON object")
            self._read[name] = content
        return self._read[name]


def leaves(content: Any, path: str) -> Iterator[Any]:
    """The values at a path: names of fields with `/` between; `*` and `?` in them stand for any text or character."""
    name, _, rest = path.partition("/")
    if isinstance(content, Mapping):
        found = [value for key, value in content.items() if fnmatchcase(key, name)]
    elif isinstance(content, list):
        found = content if name == "*" else content[int(name) : int(name) + 1] if name.isdigit() else []
    else:
        found = []
    for value in found:
        if rest:
            yield from leaves(value, rest)
        else:
            yield value


def span(values: Sequence[Any], form: str) -> str:
    """The least and the greatest value as text, once if both read alike."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def told(records: Records, call: str) -> str:
    """One value, or several in one, as text.

    Args:
        records: Those of the repository.
        call: `RECORD[,RECORD…] PATH [mean|min|max|sum|count|span] [FORMAT]`. `span` gives the least and the greatest
            ("1.04 to 1.11"); FORMAT is Python's (`.2f`, `.1%`).

    Raises:
        MissingRecordError: A record does not exist.
        RecordError: Nothing lies at the path, or several values do and nothing says how to make one of them.
    """
    names, path, *words = call.split()
    how = words.pop(0) if words and words[0] in {*AGGREGATES, "span"} else ""
    form = words.pop(0) if words else ""
    if words:
        raise RecordError(f"{call!r}: {words[0]!r} is too much")
    found = [value for name in names.split(",") for value in leaves(records[name], path)]
    if not found:
        raise RecordError(f"{names}: nothing at {path}: mend the path, or make the record anew: {maker(names)}")
    if how == "span":
        return span(found, form)
    if how:
        return format(AGGREGATES[how](found), form)
    if len(found) > 1:
        raise RecordError(f"{call!r}: {len(found)} values: say mean, min, max, sum, count or span")
    return format(found[0], form)


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def set_words(name: str) -> str:
    """The title of a record's data set in tables."""
    return next((words for end, words in SETS.items() if name.endswith(f"-{end}")), name)


def present(records: Records, names: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The records that exist; raises `MissingRecordError` if none does."""
    found = {}
    for name in names:
        try:
            found[name] = records[name]
        except MissingRecordError as error:
            missing = error
    if not found:
        raise missing
    return found
