"""Audits of seconds: few pictures, few attacks, all kinds of parts."""

from __future__ import annotations

import pytest

from encdl.attacks.chosen import ChosenPlaintext
from encdl.attacks.readers import MembershipInference
from encdl.attacks.whitebox import KeyPlaneRecovery
from encdl.audit import pictures, plan, report, robustness, run
from encdl.audit.run import Order, Size

SIZE = Size(
    side=16,
    train=64,
    test=24,
    statistic_side=32,
    statistic_images=12,
    sequences=20,
    sequence_bits=1024,
    small=True,
    patience=1,
)
ATTACKS = (ChosenPlaintext, KeyPlaneRecovery, MembershipInference)
"""Two of the quickest, and one that is advisory."""


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `--quick` tiny."""
    monkeypatch.setattr(run, "QUICK", SIZE)
    for module in (plan, report):
        monkeypatch.setattr(module, "ATTACKS", ATTACKS)
    monkeypatch.setattr(pictures, "LARGE_SIDE", 160)
    few = {name: (kind, strengths[:2]) for name, (kind, strengths) in robustness.CURVES.items()}
    monkeypatch.setattr(robustness, "CURVES", few)
    clear()


def clear() -> None:
    """Forget what a process keeps of the last order."""
    run._scene.cache_clear()
    run._prepared.cache_clear()
    run._statistic_pictures.cache_clear()


ORDER = Order(quick=True)
WEAK = Order(weights="fixed_xor", reference=True, quick=True)
