"""Findings over the seeds of an attacker."""

from __future__ import annotations

import json
import math

import pytest
from scipy import stats

from encdl.audit.attacks.base import Finding
from encdl.audit.security.repeats import combined, mean_over_seeds
from encdl.audit.security.verdict import checks


def finding(score: float, broken: bool = False, **more: object) -> Finding:
    interval = (score - 1, score + 2)
    return Finding("tile", "agile", "default", score, 5.0, "dB", broken, "little", interval, dict(more))


def test_one_seed_is_the_finding_itself() -> None:
    found = combined([finding(6.0, leaks=False)])
    assert found == finding(6.0, leaks=False).to_dict() | {"always_broken": False, "attacker_seeds": 1}


def test_several_seeds_are_averaged() -> None:
    found = combined([finding(score, leaks=score > 7, reading=str(score)) for score in (6.0, 8.0, 7.0)])
    assert found["score"] == 7
    assert found["interval"] == [6, 9]
    assert found["baseline"] == 5
    assert found["more"]["scores_by_seed"] == [6, 8, 7]
    assert found["more"]["leaks"] is True
    assert found["more"]["reading"] == "8.0"
    assert found["budget"] == "little; 3 seeds"
    json.dumps(found, allow_nan=False)


def test_one_seed_that_breaks_is_enough_and_a_reference_has_to_fall_to_all() -> None:
    found = combined([finding(6.0), finding(7.0, broken=True)])
    assert (found["broken"], found["always_broken"]) == (True, False)
    reference = found | {"role": "reference", "reference": True, "advisory": False}
    assert [check.met for check in checks({"attacks": [reference], "rows": {}})] == [False]
    always = reference | {"always_broken": True}
    assert [check.met for check in checks({"attacks": [always], "rows": {}})] == [True]


def test_the_interval_over_seeds_agrees_with_scipy() -> None:
    scores = [6.0, 8.0, 7.5]
    expected = stats.t.interval(0.95, 2, loc=sum(scores) / 3, scale=stats.sem(scores))
    assert mean_over_seeds(scores) == pytest.approx(expected)
    assert mean_over_seeds([4.0, 4.0]) == (4, 4)


def test_a_finding_without_an_interval_has_none_over_seeds() -> None:
    bare = Finding("tile", "agile", "default", 1.0, 5.0, "dB", False, "little")
    assert combined([bare, bare])["interval"] is None
    assert math.isfinite(combined([bare, bare])["score"])
