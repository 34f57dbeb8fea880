"""EncDL's few functions in C, where they were built: at installation, if there was a C compiler.

Everything that they do is also done without them, by numpy or PyTorch and more slowly. Who changes what a function
takes or gives raises its file's revision, there and in Python: a library that an older EncDL built is then left alone.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import multiprocessing
import os
import sys
import warnings


class NotCompiledWarning(UserWarning):
    """EncDL was installed where there was no C compiler: the same bytes come several times slower."""


def built() -> bool:
    """Whether there is a library; `library` says whether it is of use."""
    return importlib.util.find_spec("encdl._compiled") is not None


@functools.cache
def library(revision_of: str, revision: int) -> ctypes.CDLL | None:
    """The library, or None where it is not to be had.

    Args:
        revision_of: A function without arguments that tells the revision of what the caller uses, or 0 if that can't
            run on this processor.
        revision: The only one that the caller knows: a library of another was built from another EncDL.
    """
    spec = importlib.util.find_spec("encdl._compiled")
    if spec is None or spec.origin is None:
        _tell_once()
        return None
    try:
        found = ctypes.CDLL(spec.origin)
        return found if getattr(found, revision_of)() == revision else None
    except (OSError, AttributeError):  # built for another machine, or without that function
        return None


def threads() -> int:
    """How many threads may work: as many as PyTorch takes, or, before it is loaded, as many as it would."""
    if torch := sys.modules.get("torch"):
        return int(torch.get_num_threads())
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) else cores()


def cores() -> int:
    """Processor cores that this process may use: on one alone a thread beside another saves no time."""
    mine = getattr(os, "sched_getaffinity", None)
    return len(mine(0)) if mine else os.cpu_count() or 1


@functools.cache
def _tell_once() -> None:
    """Warn that there is no library, once in a command; its worker processes say nothing."""
    if multiprocessing.parent_process() is None:
        warnings.warn(
            "EncDL was installed without a C compiler: encryption gives the same bytes, several times slower; "
            "install a compiler, and then EncDL anew",
            NotCompiledWarning,
            stacklevel=2,
        )
