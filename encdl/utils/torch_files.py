"""Files of `torch.save` from strangers: read without code, and without more memory than the file has bytes."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def read(path: str | Path) -> Any:
    """Load a file that holds plain values and tensors, onto the CPU.

    Raises:
        pickle.UnpicklingError: it holds something else, or is deflated: a small file could fill the memory then.
        OSError, EOFError, RuntimeError, LookupError, AttributeError, TypeError, ValueError, zipfile.BadZipFile: it is
            of another kind, or damaged.
    """
    with zipfile.ZipFile(path) as parts:
        stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts.infolist())
        size = sum(part.file_size for part in parts.infolist())
    if not stored or size > Path(path).stat().st_size:
        raise pickle.UnpicklingError("the parts of the file are larger than the file")
    return torch.load(path, map_location="cpu", weights_only=True)


def fits(make: Callable[[], nn.Module], state: Mapping[str, Tensor], path: str | Path) -> bool:
    """Whether a state has a module's names and shapes, and the file its numbers; costs no memory.

    A file of a kilobyte may ask for a network of gigabytes, and a view of one number stand for its tensors.

    Args:
        make: makes the module, here on PyTorch's meta device.
        state: what it shall be loaded with.
        path: the file that the state comes from.
    """
    try:
        with torch.device("meta"):
            wanted = make().state_dict()
    except NotImplementedError:  # a module that computes while it is made
        return True
    shapes = {name: tensor.shape for name, tensor in wanted.items()}
    found = {name: tensor.shape for name, tensor in state.items()}
    needed = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    return shapes == found and needed <= Path(path).stat().st_size
