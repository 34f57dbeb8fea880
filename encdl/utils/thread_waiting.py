"""Waiting of threads beside other busy programs: a short time awake, then asleep.

GCC's OpenMP runtime, which PyTorch brings on Linux, has a thread that waits for the others spin 300,000 rounds, some
10 ms, before it sleeps. Beside programs that take the cores, that is most of the processors' time: a training step of
0.19 s alone took 29 s beside five busy programs on 2 cores, and 2.2 s with `SPINS` rounds, which cost 1 % on an idle
machine (never to spin costs a quarter). `SPINS` is about as long as it takes to wake a sleeping thread.

Sources: GOMP_SPINCOUNT and OMP_WAIT_POLICY in GCC's manual of libgomp; KMP_BLOCKTIME, the same of Intel's and LLVM's
runtime (Windows, macOS; milliseconds, not measured here), in "Guide to TensorFlow Runtime Optimizations for CPU", Intel
2022.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Final

SPINS: Final = 2000

DEFAULTS: Final = {"GOMP_SPINCOUNT": str(SPINS), "KMP_BLOCKTIME": "1"}
"""Environment variables, one for each runtime."""

_OVERALL: Final = ("OMP_WAIT_POLICY", "KMP_LIBRARY")
"""Whoever sets one of these has said how threads wait; `DEFAULTS` would overrule it."""


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have threads wait as `DEFAULTS` says, in this process and those that it starts, where the user said nothing.

    The runtime looks at these once, when it is loaded: call this before torch is imported. Commands do; the library
    leaves alone the environment of whoever imports it.
    """
    if not any(name in environment for name in _OVERALL):
        for name, value in DEFAULTS.items():
            environment.setdefault(name, value)
