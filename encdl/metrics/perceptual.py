"""Perceptual distance of images: how far they are apart in the features of a network that reads such images.

As LPIPS without its weights, which would have to be fetched (R. Zhang, P. Isola, A. Efros, E. Shechtman, O. Wang,
arXiv:1801.03924, the unweighted form); the network is a reader of the data set itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def perceptual_distance(network: nn.Module, stages: Mapping[str, nn.Module], a: Tensor, b: Tensor) -> float:
    """Mean over images and stages of the squared distance of features, each place's scaled to length 1: 0 to 4.

    Args:
        network: Takes both batches; in evaluation mode.
        stages: The modules whose results are compared, (B, C, H, W) each.
        a: uint8 (B, C, H, W).
        b: The same shape.
    """
    seen: dict[str, list[Tensor]] = {name: [] for name in stages}
    handles = [
        module.register_forward_hook(lambda _, __, result, name=name: seen[name].append(result))
        for name, module in stages.items()
    ]
    try:
        network(a), network(b)
    finally:
        for handle in handles:
            handle.remove()
    distances = []
    for one, other in seen.values():
        ones, others = (nn.functional.normalize(each.float(), dim=1) for each in (one, other))
        distances.append((ones - others).square().sum(1).mean())
    return float(torch.stack(distances).mean())
