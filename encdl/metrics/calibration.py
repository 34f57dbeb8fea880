"""How far a classifier's confidence is from how often it is right: the expected calibration error, and its bins."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

BINS = 15


class Calibration(Metric):
    """The expected calibration error, 0 to 1, over bins of equal width (Guo et al. 2017, arXiv:1706.04599).

    Once computed, `bins` has, for each bin, how many answers it holds, their mean confidence, and the share of them
    that is right: float32 (BINS, 3), NaN where it holds none.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.sums: Tensor
        self.bins = torch.empty(0, 3)
        self.add_state("sums", torch.zeros(BINS, 3), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, label: Tensor) -> None:
        """Collect a batch: float32 (B, classes), each row of sum 1, and int64 (B,)."""
        confidence, answer = probabilities.max(1)
        number = (confidence * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
        told = torch.stack([torch.ones_like(confidence), confidence, (answer == label).to(confidence)], dim=1)
        self.sums.index_add_(0, number, told.to(self.sums))

    def compute(self) -> Tensor:
        """float32, a scalar."""
        count, confidence, right = self.sums.unbind(1)
        self.bins = torch.stack([count, confidence / count, right / count], dim=1)
        return (confidence - right).abs().sum() / count.sum().clamp(min=1)
