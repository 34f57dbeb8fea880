"""Training cuts and augmentation of volumes, by MONAI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai import transforms

BOTH = ["image", "mask"]


def training_transform(crop: int, augment: bool) -> Any:
    """Augmentation of a sample of a volume, `image` uint8 (C, D, H, W) and, if there is one, `mask` alike.

    Args:
        crop: Side of the cubes that are cut, two of three around a labelled voxel where there is a mask; 0 cuts none.
        augment: Turn, shift and stretch a little, and change brightness and contrast. Nothing is mirrored: left and
            right differ.

    Returns:
        A transform with `set_random_state`; whole levels, in float32 where it augments.
    """
    steps: list[Any] = []
    if crop:
        steps.append(_Cube(crop))
    if augment:
        steps += [
            transforms.RandAffined(
                BOTH,
                prob=0.8,
                rotate_range=(0.2, 0.2, 0.2),
                translate_range=(3, 3, 3),
                scale_range=(0.1, 0.1, 0.1),
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
                allow_missing_keys=True,
            ),
            transforms.RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
            transforms.RandScaleIntensityd("image", factors=0.15, prob=0.5),
            transforms.RandGaussianNoised("image", prob=0.2, std=6.0),
            transforms.Lambdad("image", _whole_levels),
        ]
    return transforms.Compose(steps)


class _Cube(transforms.Randomizable, transforms.Transform):  # type: ignore[misc]  # MONAI has no types
    def __init__(self, side: int) -> None:
        self._labelled = transforms.RandCropByPosNegLabeld(
            BOTH, label_key="mask", spatial_size=(side,) * 3, pos=2, neg=1, num_samples=1
        )
        self._anywhere = transforms.RandSpatialCropd("image", roi_size=(side,) * 3, random_size=False)

    def set_random_state(self, seed: int | None = None, state: Any = None) -> _Cube:
        super().set_random_state(seed, state)
        for each in (self._labelled, self._anywhere):
            each.set_random_state(int(self.R.randint(2**31)))
        return self

    def randomize(self, data: Any) -> None:
        """The two draw for themselves."""

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        found: dict[Any, Any] = self._labelled(data)[0] if "mask" in data else self._anywhere(data)
        return found


def _whole_levels(image: Any) -> Any:
    return image.round().clip(0, 255)
