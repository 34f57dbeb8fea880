"""Calibration against torchmetrics, and its bins."""

from __future__ import annotations

import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from encdl.metrics.calibration import BINS, Calibration


def test_the_error_is_that_of_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = torch.randn(200, 3, generator=generator).mul(2).softmax(1)
    labels = torch.randint(0, 3, (200,), generator=generator)
    metric = Calibration()
    for part in (slice(0, 70), slice(70, None)):
        metric.update(shares[part], labels[part])
    torch.testing.assert_close(metric.compute(), multiclass_calibration_error(shares, labels, 3, n_bins=BINS))
    known = metric.bins[metric.bins[:, 0] > 0]
    assert known[:, 0].sum() == 200
    assert ((known[:, 1:] >= 0) & (known[:, 1:] <= 1)).all()
