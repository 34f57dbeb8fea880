"""Brain slices of the MNI152 template, which ships inside nilearn's wheel: real data without a download.

It is ONE brain, the average of 152 people: a development set, on which a cipher can be trained and every part
tried out, and no ground for claims about unseen patients. The slices are axial. The splits are slabs of
neighbouring slices with gaps between them, so that no test slice has a near-duplicate in training. Sagittal
and coronal slices would cross every slab, so there are none.

Source: ICBM 152 nonlinear atlas, version 2009a (Fonov et al. 2011, NeuroImage 54, 313-327), skull-stripped,
at 1 mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from encdl.data.base import DATA_SETS, DataSpec, ImageDataModule, Sample, Split
from encdl.utils.errors import DataError

SLABS: dict[Split, tuple[range, ...]] = {
    "train": (range(20, 57), range(77, 103), range(123, 146)),
    "val": (range(62, 72),),
    "test": (range(108, 118),),
}
"""Axial slice numbers, that is millimetres above the volume's floor. At least 5 mm lie between two slabs."""

FILES = {
    "t1": "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "grey": "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz",
    "white": "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz",
}

TISSUES = ("other", "grey matter", "white matter")
TISSUE_MAPS: tuple[Literal["grey", "white"], ...] = ("grey", "white")


def volume(name: Literal["t1", "grey", "white"] = "t1") -> np.ndarray:
    """Read one volume of the template: the T1-weighted image, or the probability of grey or white matter.

    Returns:
        uint8 (197, 233, 189): left to right, back to front, bottom to top, 1 mm apart; background 0.

    Raises:
        DataError: nilearn is not installed, or its wheel lacks the file.
    """
    # Found, not imported: nilearn takes seconds to import, and its data file needs none of its code.
    package = find_spec("nilearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("the embedded brain is a file of nilearn, which is not installed here: pip install nilearn")
    path = Path(package.submodule_search_locations[0], "datasets", "data", FILES[name])
    if not path.is_file():
        raise DataError(f"this version of nilearn has no {path}: pip install 'nilearn>=0.11'")
    import nibabel  # noqa: PLC0415

    image = nibabel.load(path)
    voxels: np.ndarray = np.asanyarray(image.dataobj)
    if voxels.dtype != np.uint8:
        raise DataError(f"{path} holds {voxels.dtype}, not uint8: this version of nilearn is not supported")
    return voxels


def axial_slice(voxels: np.ndarray, index: int) -> np.ndarray:
    """Slice `index` of a template volume as an image with the front of the head up: uint8 (1, 233, 197)."""
    return np.ascontiguousarray(np.rot90(voxels[:, :, index]))[None]


@DATA_SETS.register("embedded")
class EmbeddedMRI(ImageDataModule):
    """Axial slices of the MNI152 T1 template, 233 x 197 pixels: 86 for training, 10 and 10 to check."""

    @property
    def spec(self) -> DataSpec:
        """One channel, 233 x 197 pixels of 1 mm."""
        return DataSpec(channels=1, height=233, width=197, spacing_mm=(1.0, 1.0))

    def samples(self, split: Split) -> Sequence[Sample]:
        """The slices of one slab or more; the volume takes 0.1 s to read."""
        voxels = volume("t1")
        return [{"image": axial_slice(voxels, index)} for slab in SLABS[split] for index in slab]


@DATA_SETS.register("tissue")
class EmbeddedTissue(EmbeddedMRI):
    """The slices of `EmbeddedMRI` with the tissue of each pixel: grey matter, white matter or another.

    A pixel is of a tissue where the template gives that a probability above one half, so it is never of both.
    """

    @property
    def spec(self) -> DataSpec:
        """As of `EmbeddedMRI`, with three classes."""
        return replace(super().spec, classes=TISSUES)

    def samples(self, split: Split) -> Sequence[Sample]:
        """The slices, with `mask` uint8 (1, 233, 197): 0 other, 1 grey matter, 2 white matter."""
        grey, white = (volume(name) > 127 for name in TISSUE_MAPS)
        tissue = np.uint8(1) * grey + np.uint8(2) * white
        places = (index for slab in SLABS[split] for index in slab)
        return [
            {**sample, "mask": axial_slice(tissue, index)}
            for sample, index in zip(super().samples(split), places, strict=True)
        ]
