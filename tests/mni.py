"""Real slices for tests: the MNI152 T1 template in the wheel of nilearn (which is not imported itself)."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import nibabel
import numpy as np
import torch
from torch import Tensor

_FILE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


@functools.cache
def _volume() -> np.ndarray:
    spec = importlib.util.find_spec("nilearn")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    path = Path(spec.submodule_search_locations[0]) / _FILE
    return np.asarray(nibabel.load(path).dataobj, dtype=np.uint8)


def mni_slice(index: int = 90, height: int = 197, width: int = 233) -> Tensor:
    """An axial slice as uint8 (1, 1, height, width), cropped or zero-padded around its centre."""
    whole = _volume()[:, :, index]
    padded = np.pad(whole, 256)
    top = (padded.shape[0] - height) // 2
    left = (padded.shape[1] - width) // 2
    return torch.from_numpy(padded[top : top + height, left : left + width].copy())[None, None]
