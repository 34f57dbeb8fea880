"""Timing of readers: all steps in one run, and what the ratios are of."""

from __future__ import annotations

import pytest
import torch

from encdl.audit.studies import cost
from encdl.keys.planes import PlaneSpec
from encdl.readers import PlainStem, Reader
from tests.reader_checkpoint import resnet
from tests.training.tasks.support import tiny_cipher


def test_ratios_are_of_the_times_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "ROUNDS", 2)
    reader = Reader(PlainStem(1, 4), resnet(4, 2, width=4))
    found = cost.cost(reader, tiny_cipher().eval(), PlaneSpec(), "cpu", (32,), (1, 2))
    assert list(found) == ["32px_batch1", "32px_batch2"]
    for times in found.values():
        assert all(value > 0 for value in times.values() if isinstance(value, float))
        for one, other in cost.RATIOS:
            low, high = times[f"{one}_to_{other}_quartiles"]
            assert 0 < low <= times[f"{one}_to_{other}"] <= high
    assert torch.is_grad_enabled()
