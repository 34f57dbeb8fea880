"""Audits of seconds: few images, few attacks, all kinds of parts, untrained weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from encdl.audit.attacks.chosen_plaintext import ChosenPlaintext
from encdl.audit.attacks.membership import MembershipInference
from encdl.audit.attacks.whitebox import KeyPlaneRecovery
from encdl.audit.security import image_sets, measures, page, plan, robustness, settings
from encdl.audit.security.request import Order
from encdl.audit.security.settings import Budget
from encdl.ciphers import weights
from tests.audit.attacks.support import cipher

BUDGET = Budget(
    every_mode=False,
    side=16,
    train=64,
    test=24,
    attacker_seeds=1,
    small=True,
    patience=1,
    statistic_side=32,
    statistic_images=12,
    sequences=20,
    sequence_bits=1024,
)
ATTACKS = {kind.name: kind for kind in (ChosenPlaintext, KeyPlaneRecovery, MembershipInference)}
"""Two of the quickest, and one that is advisory."""


def ship(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have the names of shipped weights stand for untrained ones."""
    files = {}
    for name in ("agile", "coupled", "thesis"):
        weights.save(cipher(name), folder / f"{name}.pt")
        files[name] = str(folder / f"{name}.pt")
    same = {"default": files["agile"], "keystream": files["agile"]}
    monkeypatch.setattr(weights, "SHIPPED", files | same)


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `--quick` tiny."""
    monkeypatch.setitem(settings.BUDGETS, "quick", BUDGET)
    for module in (plan, page):
        monkeypatch.setattr(module, "ATTACKS", ATTACKS)
    monkeypatch.setattr(image_sets, "LARGE_SIDE", 160)
    few = {name: (kind, strengths[:2]) for name, (kind, strengths) in robustness.CURVES.items()}
    monkeypatch.setattr(robustness, "CURVES", few)
    clear()


def clear() -> None:
    """Forget what a process keeps of the last order."""
    for kept in (
        measures.cuts,
        measures._prepared,
        measures._statistic_images,
        image_sets._source,
        image_sets._test_images,
    ):
        kept.cache_clear()


ORDER = Order(budget=BUDGET)
WEAK = replace(ORDER, weights="fixed_xor", reference=True)
