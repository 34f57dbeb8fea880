"""The settings that a sweep tries: values in a grid, and ranges to search."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from optuna import distributions
from optuna.distributions import BaseDistribution

from encdl.cluster.grid import SEEDED, Trial, parse_grid, parse_setting
from encdl.utils.errors import UsageError

Space: TypeAlias = dict[str, BaseDistribution]
RANGE = re.compile(r"(log:)?([^:]+?)\.\.([^:]+)")
HOW = "give KEY=LOW..HIGH or KEY=log:LOW..HIGH, such as model.init_args.learning_rate=log:1e-4..1e-1"


def parse_space(grid: Sequence[str], ranges: Sequence[str]) -> Space:
    """The search space of `--grid KEY=V1,V2` and `--search KEY=LOW..HIGH` words.

    Two whole numbers make a range of whole numbers. `log:` searches the exponent.

    Raises:
        UsageError: There is nothing to try, a word is of another form, or a key is there
            twice.
    """
    space: Space = {key: distributions.CategoricalDistribution(values) for key, values in parse_grid(grid).items()}
    for word in ranges:
        key, text = parse_setting(word, "--search")
        if key in space:
            raise UsageError(f"--search {word}: {key} is there twice")
        space[key] = _range(word, text)
    if not space:
        raise UsageError("a sweep needs something to try: give --grid KEY=V1,V2 or --search KEY=LOW..HIGH")
    if len(seeds := [key for key in space if key in SEEDED]) > 1:
        raise UsageError(f"{' and '.join(seeds)} would be combined with each other: sweep over one of them")
    return space


def settings(values: Mapping[str, Any]) -> Trial:
    """Values that a searcher chose as settings of `encdl fit`; numbers exactly."""
    return tuple((key, value if isinstance(value, str) else repr(value)) for key, value in values.items())


def is_grid(space: Space) -> bool:
    """Whether there are finitely many points, all named by the user."""
    return all(hasattr(distribution, "choices") for distribution in space.values())


def _range(word: str, text: str) -> BaseDistribution:
    found = RANGE.fullmatch(text)
    if not found:
        raise UsageError(f"--search {word}: {HOW}")
    log, ends = bool(found[1]), (found[2], found[3])
    try:
        whole = all(re.fullmatch(r"-?\d+", end) for end in ends)
        low, high = (int(end) if whole else float(end) for end in ends)
    except ValueError:
        raise UsageError(f"--search {word}: {HOW}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"--search {word}: the lower end must be finite and below the upper one")
    if log and low <= 0:
        raise UsageError(f"--search {word}: a range of exponents begins above 0")
    if whole:
        return distributions.IntDistribution(int(low), int(high), log=log)
    return distributions.FloatDistribution(low, high, log=log)
