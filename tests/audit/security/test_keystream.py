"""NIST's tests over a map's sequences: one that fails is carried out again on others."""

from __future__ import annotations

from typing import Any

import pytest

from encdl.audit.security import keystream
from encdl.audit.security.verdict import checks
from encdl.metrics import randomness

TESTS = 11
"""That are carried out on sequences of 2^14 bits."""


@pytest.mark.parametrize(("fails", "met"), [(1, True), (2, False)])
def test_a_test_that_fails_is_repeated_on_other_sequences(
    monkeypatch: pytest.MonkeyPatch, fails: int, met: bool
) -> None:
    judged, turns = randomness.judged, []

    def failing(ps: randomness.Values) -> dict[str, Any]:
        turns.append(ps.tobytes())
        return judged(ps) | {"passed": len(turns) % TESTS != 6 or len(turns) > TESTS * fails}

    monkeypatch.setattr(randomness, "judged", failing)
    found = keystream.randomness_of("tent", 20, 2**14, 0)
    assert len(turns) == 2 * TESTS
    assert turns[5] != turns[5 + TESTS]
    repeated = {name for name, figures in found.items() if "first" in figures}
    assert len(repeated) == 1
    [name] = repeated
    assert not found[name]["first"]["passed"]
    [check] = checks({"attacks": [], "rows": {}, "keystream": {"tent": found}})
    assert check.met is met
    told = (
        f"{TESTS} of {TESTS} pass; {name} on other sequences, after failing once"
        if met
        else f"{TESTS - 1} of {TESTS} pass; not {name}"
    )
    assert check.figure == told


def test_sequences_that_pass_are_tested_once() -> None:
    found = keystream.randomness_of("chacha20", 100, 2**14, 0)
    assert all(figures["passed"] and "first" not in figures for figures in found.values())
