"""One finding from several: the same attack on the same target, carried out with other draws each time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from scipy.stats import t

from encdl.audit.attacks.base import Finding

CONFIDENCE = 0.95


def combined(findings: Sequence[Finding]) -> dict[str, Any]:
    """A finding as plain values, over the seeds of the attacker.

    `score`, `baseline` and the ends of `interval` (over images or guesses, at 99.9 %) are means over seeds. It has
    broken the target if it did so with any seed, and `always_broken` says whether it did with all. Where there are
    several seeds, `more` also has `scores_by_seed` and `interval_over_seeds` (Student's t, at 95 %).

    Args:
        findings: One a seed, at least one.
    """
    first = findings[0].to_dict()
    found = first | {"always_broken": all(each.broken for each in findings), "attacker_seeds": len(findings)}
    if len(findings) == 1:
        return found
    scores = [each.score for each in findings]
    ends = [each.interval for each in findings if each.interval]
    best = max(findings, key=lambda each: each.score).to_dict()
    more = dict(best["more"])
    if "leaks" in more:
        more["leaks"] = any(each.more["leaks"] for each in findings)
    more |= {"scores_by_seed": scores, "interval_over_seeds": list(mean_over_seeds(scores))}
    return found | {
        "score": statistics.fmean(scores),
        "baseline": statistics.fmean(each.baseline for each in findings),
        "broken": any(each.broken for each in findings),
        "interval": None if len(ends) < len(scores) else [statistics.fmean(end) for end in zip(*ends, strict=True)],
        "budget": f"{best['budget']}; {len(findings)} seeds",
        "more": more,
    }


def mean_over_seeds(scores: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of scores of two seeds or more, by Student's t."""
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(scores) - 1)) * statistics.stdev(scores) / math.sqrt(len(scores))
    mean = statistics.fmean(scores)
    return mean - half, mean + half
