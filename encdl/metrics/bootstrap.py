"""Intervals of means by the bootstrap, over images or over the patients that they come from."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

DRAWS = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its interval; the ends are None where there is but one image, patient or cluster."""

    mean: float
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, float | None]:
        """As plain values."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def interval(
    values: Sequence[float], groups: Sequence[Hashable] | None = None, seed: int = 0, draws: int = DRAWS
) -> Interval:
    """The mean and its 95 % interval.

    Whole groups are drawn with replacement, so that images of one patient, which are alike, do not count as so many
    independent ones. Percentiles of the bootstrapped means alone are too narrow where groups are few; they are moved
    outward as the t distribution asks (the expanded percentile interval: T. C. Hesterberg, "What Teachers Should Know
    About the Bootstrap", The American Statistician 69 (2015) 371-386, section 5.2).

    Args:
        values: One an image, at least one.
        groups: What each image belongs to; every image is a group of its own if None.
        seed: Of the draws.
        draws: How many.

    Raises:
        ValueError: There are no values, or not as many groups.
    """
    figures = np.asarray(values, dtype=np.float64)
    names = np.arange(len(figures)) if groups is None else np.unique([str(g) for g in groups], return_inverse=True)[1]
    if figures.ndim != 1 or len(figures) == 0 or len(names) != len(figures):
        raise ValueError(f"expected values and as many groups, got {figures.shape} and {len(names)}")
    sums, counts = np.bincount(names, figures), np.bincount(names)
    mean, number = float(figures.mean()), len(sums)
    if number == 1:
        return Interval(mean, None, None)
    drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=draws)
    means = (drawn @ sums) / (drawn @ counts)
    tail = (1 - CONFIDENCE) / 2
    outward = float(norm.cdf(np.sqrt(number / (number - 1)) * t.ppf(tail, number - 1)))
    low, high = np.quantile(means, (outward, 1 - outward))
    return Interval(mean, float(low), float(high))
