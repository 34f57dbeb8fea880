"""The device to compute on: CPU or GPU, by the name that a user gives."""

from __future__ import annotations

import ctypes
import os
import sys

from encdl.utils.errors import UsageError


def usable_device(choice: str) -> str:
    """The device behind "auto", or any that PyTorch knows, such as "cpu" or "cuda:1".

    PyTorch takes seconds to load: it is not asked on a machine that has no driver of NVIDIA's, nor about "cpu".

    Raises:
        UsageError: there is no such device, or it is not usable here.
    """
    if choice == "cpu" or (choice == "auto" and "torch" not in sys.modules and not _has_driver()):
        return "cpu"
    import torch  # noqa: PLC0415

    if choice == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(choice)
    except RuntimeError:
        raise UsageError(f"device {choice!r} is not known: use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {choice!r}: no CUDA device is usable here: use --device cpu")
    return choice


def _has_driver() -> bool:
    """Whether there is a library of NVIDIA's or AMD's driver, without which PyTorch finds no "cuda" device."""
    for name in ("nvcuda.dll",) if os.name == "nt" else ("libcuda.so.1", "libamdhip64.so"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return os.path.exists("/dev/kfd")
