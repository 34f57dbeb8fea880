"""The device to compute on: CPU or GPU, by the name that a user gives."""

from __future__ import annotations

import torch

from encdl.utils.errors import UsageError


def usable_device(choice: str) -> str:
    """The device behind "auto", or any that PyTorch knows, such as "cpu" or "cuda:1".

    Raises:
        UsageError: there is no such device, or it is not usable here.
    """
    if choice == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(choice)
    except RuntimeError:
        raise UsageError(f"device {choice!r} is not known: use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"device {choice!r}: no CUDA device is usable here: use cpu")
    return choice
