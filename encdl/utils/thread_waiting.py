"""Waiting of threads beside other busy programs: a short time awake, then asleep.

PyTorch, and EncDL's compiled code with it, share out the steps of a network among the threads of an OpenMP runtime. A
thread that is done waits for the others. GCC's runtime, which PyTorch brings on Linux, has it spin 300,000 rounds
before it sleeps: some 10 ms, where a step takes 0.1 to 1. That is well while every thread has a core. Once another
program takes one of them, the others spin through the time that the system gives them, waiting for the one that has
none: the processors' time goes into waiting, and the neighbour has less of it as well.

`SPINS` is about as long as it takes to wake a sleeping thread, so that waiting costs little more than the better of
both. Measured on 2 cores of a shared machine: seconds a step of version 0.1's training, alone (by real-time priority)
and beside busy programs (in brackets the processors' seconds); then, beside 2 of them, small convolutions by two
threads, as times what one thread takes of the wall and of the processors (`tests/busy_trial.py`):

    rounds           alone    beside 2       beside 5      small convolutions
    300,000          .185     1.81 (1.13)    29 (8.8)      7.8 to 23, 10 to 37
    5,000            .192      .83 (.42)     3.4 (1.1)     1.1 to 2.3, 1.7 to 2.6
    2,000 (taken)    .194      .93 (.45)     2.2 (.90)      .3 to 1.1, 1.2 to 1.5
    0 (passive)      .234     1.03 (.42)     2.1 (.75)      .3 to .6,   .9 to 1.0

Never to spin costs a quarter on an idle machine, and half of it for the small convolutions, where 2,000 cost 1 %.

Sources: GOMP_SPINCOUNT and OMP_WAIT_POLICY in GCC's manual of libgomp; "Guide to TensorFlow Runtime Optimizations for
CPU", Intel 2022, for KMP_BLOCKTIME, the same of Intel's and LLVM's runtime (Windows, macOS) in milliseconds, 200 by
default. The latter was not measured here.
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
