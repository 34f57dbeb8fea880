"""Keeps keys out of core dumps, and other programs of the same user out of the memory that holds them."""

from __future__ import annotations

import contextlib
import ctypes
import resource

PR_SET_DUMPABLE = 4


def forbid() -> None:
    """Let this process leave no core dump, and nobody but root attach a debugger or read its environment.

    RLIMIT_CORE alone does not stop a core dump that goes to a program (`|` in /proc/sys/kernel/core_pattern); prctl(2)
    with PR_SET_DUMPABLE does. Both last until another program is
    executed. Nothing here keeps memory from being swapped.
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError, AttributeError):  # a system without it
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
