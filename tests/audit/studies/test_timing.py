"""Turns are fair, and ratios are of times of one round."""

from __future__ import annotations

import time

import pytest
import torch

from encdl.audit.studies import timing
from encdl.audit.studies.timing import milliseconds, ratios, take_turns

CPU = torch.device("cpu")


def busy(seconds: float) -> None:
    """Compute for so long, in this process's own time."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_every_step_runs_once_a_round_in_turned_order() -> None:
    told: list[str] = []
    turns = take_turns({name: lambda name=name: told.append(name) for name in "abc"}, 4, CPU)  # type: ignore[misc]
    assert "".join(told) == "cbaabc" * 3  # two rounds do not count
    assert all(len(values) == 4 for clock in (turns.own, turns.wall) for values in clock.values())


def test_what_takes_longer_is_told_to_and_waiting_is_not_counted_on_a_cpu() -> None:
    steps = {"short": lambda: busy(0.004), "long": lambda: busy(0.012), "idle": lambda: time.sleep(0.03)}
    turns = take_turns(steps, 3, CPU)
    times = milliseconds(turns.own)
    assert times["idle"] < 4 <= times["short"] < 12 <= times["long"]
    assert milliseconds(turns.wall)["idle"] >= 30
    found = ratios(turns.own, [("long", "short")])
    assert 2 < found["long_to_short"] < 4


def test_a_ratio_is_the_median_over_the_rounds() -> None:
    found = ratios({"a": [1.0, 20.0, 3.0], "b": [1.0, 10.0, 1.0]}, [("a", "b")])
    assert found == {"a_to_b": 2.0, "a_to_b_quartiles": [1.5, 2.5]}


def test_no_round_begins_when_it_has_taken_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "ENOUGH_S", 0.0)
    assert len(take_turns({"one": lambda: None}, 9, CPU).own["one"]) == 2
