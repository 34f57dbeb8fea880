"""Kernels for a GPU, in Triton: the same bytes as from the CPU, without a hash or a keystream on the host.

Triton comes with PyTorch's builds for CUDA. Without it, or without a GPU, `available` is false and everything works as
it does on a CPU. No module here but this one is imported then. With TRITON_INTERPRET=1 the kernels run on the CPU too,
thousands of times slower: that is how tests without a GPU compare them. A kernel is compiled at its first use, which
takes seconds, once for all sizes of images.
"""

from __future__ import annotations

import functools
import importlib.util

import torch


def available(device: torch.device | str) -> bool:
    """Whether the kernels run on this device."""
    return torch.device(device).type == "cuda" and _usable()


@functools.cache
def _usable() -> bool:
    return torch.version.cuda is not None and importlib.util.find_spec("triton") is not None
