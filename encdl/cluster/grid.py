"""Grids of settings: `KEY=V1,V2` on the command line, every combination of them, and seeds."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from encdl.utils.errors import UsageError

Setting: TypeAlias = tuple[str, str]
Trial: TypeAlias = tuple[Setting, ...]
"""The settings of one training of a grid: (key, value) as `encdl fit` takes them."""

SEEDED = ("seed_everything", "model.init_args.seed", "data.init_args.seed")
"""The settings that one seed fixes: first weights and steps, keys and damage, order and augmentation."""
KEY = re.compile(r"[A-Za-z_][\w.+-]*")
MOST_TRIALS = 10_000


def parse_setting(word: str, option: str) -> Setting:
    """`KEY=VALUE` as a pair.

    Raises:
        UsageError: It is of another form.
    """
    key, equals, value = word.partition("=")
    if not equals or not KEY.fullmatch(key) or not value:
        raise UsageError(f"{option} {word}: give KEY=VALUE, such as model.init_args.learning_rate=0.001")
    return key, value


def parse_grid(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """`KEY=V1,V2` words as values by key; commas inside brackets, braces and quotes belong to a value.

    Raises:
        UsageError: A word is of another form, a value is empty, or a key or a value is given twice.
    """
    grid: dict[str, tuple[str, ...]] = {}
    for word in words:
        key, text = parse_setting(word, "--grid")
        values = tuple(value.strip() for value in _split(text))
        if not all(values):
            raise UsageError(f"--grid {word}: a value is empty")
        if len(set(values)) < len(values):
            raise UsageError(f"--grid {word}: a value is there twice")
        if key in grid:
            raise UsageError(f"--grid {word}: {key} is there twice: give all its values together")
        grid[key] = values
    return grid


def trials(grid: Mapping[str, Sequence[str]], seeds: int | None = None) -> list[Trial]:
    """Every combination of a grid, each with the seeds 0 to `seeds` - 1; one empty trial if there is neither.

    Raises:
        UsageError: A seed is in the grid too, the number is below 1, or there are too many trials.
    """
    if seeds is not None:
        if seeds < 1:
            raise UsageError(f"--seeds must be at least 1, got {seeds}")
        if both := [key for key in SEEDED if key in grid]:
            raise UsageError(f"--seeds sets {both[0]}, and --grid does: give one of them")
    pairs = [[(key, value) for value in values] for key, values in grid.items()]
    seeded: list[Trial] = [()] if seeds is None else [seed_settings(seed) for seed in range(seeds)]
    count = len(seeded)
    for values in pairs:
        count *= len(values)
    if count > MOST_TRIALS:
        raise UsageError(f"the grid has {count} trainings: more than {MOST_TRIALS} in one array is no use")
    return [(*point, *seed) for point in itertools.product(*pairs) for seed in seeded]


def seed_settings(seed: int) -> Trial:
    """The settings that one seed stands for."""
    return tuple((key, str(seed)) for key in SEEDED)


def words(trial: Trial) -> list[str]:
    """The settings as words of `encdl fit`'s command line."""
    return [word for key, value in trial for word in (f"--{key}", value)]


def told(trial: Trial) -> str:
    """A trial in short, for tables: the last part of each key, the seed once."""
    seeds = {value for key, value in trial if key in SEEDED}
    parts = [f"{key.rpartition('.')[2]}={value}" for key, value in trial if key not in SEEDED]
    return " ".join([*parts, *(f"seed={seed}" for seed in sorted(seeds))])


def _split(text: str) -> Iterator[str]:
    """Split at commas outside of brackets, braces and quotes."""
    depth, quote, start = 0, "", 0
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "[{(":
            depth += 1
        elif character in "]})":
            depth -= 1
        elif character == "," and not depth:
            yield text[start:place]
            start = place + 1
    yield text[start:]
