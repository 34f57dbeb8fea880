"""The Medical Segmentation Decathlon as whole volumes, or as cubes cut from them, for three-dimensional readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from monai import transforms
from torch import Tensor
from torch.nn import functional as F

from encdl.data.base import DataSpec, Sample, Split
from encdl.data.decathlon import DecathlonTask, Pair
from encdl.data.volumes import Volume
from encdl.utils.errors import DataError

BOTH = ["image", "mask"]


@dataclass(eq=False, repr=False)
class DecathlonVolumes(DecathlonTask):
    """Volumes of one task: uint8 (C, D, H, W), D axial slices from below, with the front of the body up.

    With `crop` 0, the default here, volumes are padded around their middle to `size`, and training sees them whole.
    With a `crop`, training sees cubes of that side, two of three around a labelled voxel, and validation and test read
    each volume as it is, window by window: then `eval_batch_size` is 1.

    Args:
        size: Depth, height and width that volumes are padded to.
        spacing_mm: Depth, height and width of a voxel in millimetres that volumes are resampled to; null leaves them.
    """

    size: tuple[int, int, int] = (64, 64, 64)
    _: KW_ONLY
    spacing_mm: tuple[float, float, float] | None = None
    batch_size: int = 2
    eval_batch_size: int = 1
    crop: int = 0

    def _ranges(self) -> dict[str, bool]:
        return {
            "size three numbers from 1": min(self.size) >= 1,
            "spacing_mm three numbers above 0": self.spacing_mm is None or min(self.spacing_mm) > 0,
            "eval_batch_size 1, with a crop: whole volumes differ in size": not self.crop or self.eval_batch_size == 1,
        }

    @property
    def spec(self) -> DataSpec:
        """The configured size, and the classes that `dataset.json` names; reads that."""
        depth, height, width = self.size
        return DataSpec(
            len(self.channels), height, width, classes=self.classes, spacing_mm=self.spacing_mm, depth=depth
        )

    def groups(self, split: Split) -> list[str]:
        """The patient of each volume of a split: one volume a patient."""
        return [pair[0].name.partition(".")[0] for pair in self.volumes[split]]

    def on_scan(self, mask: Tensor, pair: Pair) -> np.ndarray:
        """A mask of one of this data set's samples on the grid of the file that it came from.

        Args:
            mask: uint8 (1, D, H, W), of a sample.
            pair: The files of the volume.

        Returns:
            uint8 (I, J, K), the voxels in the file's order, under the affine of its image.
        """
        import nibabel  # noqa: PLC0415
        from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform  # noqa: PLC0415

        image, _, labels = self._read_pair(pair)
        turned = np.ascontiguousarray(_stood(labels))
        inner = self._sides(image, turned.shape[1:])
        before = [(whole - part) // 2 for whole, part in zip(mask.shape[1:], inner, strict=True)]
        cut = mask[(slice(None), *(slice(start, start + part) for start, part in zip(before, inner, strict=True)))]
        grown = F.interpolate(cut[None].float(), turned.shape[1:], mode="nearest-exact")[0].to(torch.uint8)
        canonical = _stood(grown.numpy())[0]  # the same axes change places
        own = axcodes2ornt(nibabel.aff2axcodes(nibabel.load(pair[0]).affine))
        found: np.ndarray = apply_orientation(canonical, ornt_transform(axcodes2ornt("RAS"), own))
        return found

    def _samples(self, number: int, pair: Pair, split: Split) -> list[Sample]:
        image, levels, labels = self._read_pair(pair)
        planes: dict[str, Any] = {}
        for name, voxels, mode in (("image", levels, "trilinear"), ("mask", labels, "nearest-exact")):
            stood = torch.from_numpy(np.ascontiguousarray(_stood(voxels)))
            sides = self._sides(image, stood.shape[1:])
            if sides != tuple(stood.shape[1:]):
                stood = F.interpolate(stood[None].float(), sides, mode=mode)[0].round().to(torch.uint8)
            planes[name] = self._padded(stood, pair)
        return [{**planes, "volume": number}]

    def _sides(self, image: Volume, sides: tuple[int, ...]) -> tuple[int, ...]:
        """Depth, height and width after resampling."""
        if self.spacing_mm is None:
            return tuple(sides)
        own = image.spacing_mm[::-1]
        return tuple(
            max(1, round(side * had / wanted)) for side, had, wanted in zip(sides, own, self.spacing_mm, strict=True)
        )

    def _padded(self, planes: Tensor, pair: Pair) -> np.ndarray:
        least = (self.crop,) * 3 if self.crop else self.size
        if not self.crop and any(side > most for side, most in zip(planes.shape[1:], least, strict=True)):
            raise DataError(
                f"{pair[0]}: has {'x'.join(map(str, planes.shape[1:]))} voxels (D x H x W), more than data setting "
                f"size, {'x'.join(map(str, least))}: set size to as many, or crop to the side of a training cube"
            )
        more = [max(0, side - own) for side, own in zip(least, planes.shape[1:], strict=True)]
        beyond = [each for one in reversed(more) for each in (one // 2, one - one // 2)]
        return F.pad(planes, beyond).numpy()

    def _training_transform(self) -> Any:
        """A random cube if asked for, then small turns, shifts, and changes of scale and brightness."""
        steps: list[Any] = []
        if self.crop:
            side = (self.crop,) * 3
            steps.append(_Cube(BOTH, label_key="mask", spatial_size=side, pos=2, neg=1, num_samples=1))
        if self.augment:
            steps += [
                transforms.RandAffined(
                    BOTH,
                    prob=0.8,
                    rotate_range=(0.2, 0.2, 0.2),
                    translate_range=(3, 3, 3),
                    scale_range=(0.1, 0.1, 0.1),
                    mode=("bilinear", "nearest"),
                    padding_mode="zeros",
                ),
                transforms.RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
                transforms.RandScaleIntensityd("image", factors=0.15, prob=0.5),
                transforms.RandGaussianNoised("image", prob=0.2, std=6.0),
                transforms.Lambdad("image", _whole_levels),
            ]
        return transforms.Compose(steps)


class _Cube(transforms.RandCropByPosNegLabeld):  # type: ignore[misc]  # MONAI has no types
    """Gives the one cube that it cuts, not a list of it."""

    def __call__(self, data: Mapping[Any, Any], lazy: bool | None = None) -> dict[Any, Any]:
        found: dict[Any, Any] = super().__call__(data, lazy)[0]
        return found


def _stood(voxels: np.ndarray) -> np.ndarray:
    """(C, X, Y, Z) with axes that run right, forward and up as (C, D, H, W), and the other way round."""
    turned = voxels.transpose(0, 3, 2, 1)
    # Rows run from front to back: the axis Y stays in its place, and turns.
    return np.flip(turned, 2)


def _whole_levels(image: Any) -> Any:
    return image.round().clip(0, 255)
