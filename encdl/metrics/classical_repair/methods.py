"""The repairs by name, the kinds of damage that each is for, and the parameters that may be chosen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from encdl.metrics.classical_repair.bm3d import bm3d
from encdl.metrics.classical_repair.impulses import Image, Mask, decision_median, fill_median, judged_hit, median
from encdl.metrics.classical_repair.inpainting import biharmonic, telea
from encdl.metrics.classical_repair.phase_unwrapping import unwrap
from encdl.utils.errors import UsageError

Kind: TypeAlias = Literal["hits", "noise", "losses"]
"""Of damage: pixels at random levels that nobody announces, noise on all of them, pixels known to be lost."""

KINDS: tuple[Kind, ...] = get_args(Kind)
Parameters: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Repair:
    """One repair for one kind of damage.

    Attributes:
        run: (image uint8 (H, W), lost bool (H, W), parameters by name) to uint8 (H, W).
        grid: The values of each parameter that tuning tries. `noise` is in units of the damage's own deviation.
        default: The parameters without tuning.
    """

    run: Callable[..., Image]
    grid: Mapping[str, Sequence[Any]]
    default: Parameters

    def choices(self) -> list[dict[str, Any]]:
        """Every point of the grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


def _median_of_noise(image: Image, _: Mask, noise: float) -> Image:
    levels = np.clip(unwrap(image, noise), 0, 255)
    return median(levels.astype(np.uint8))


def _bm3d(image: Image, _: Mask, noise: float, strength: float, block: int) -> Image:
    found = bm3d(unwrap(image, noise), strength * noise, block)
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)


DETECTOR = {"threshold": (2.0, 2.5, 3.0), "floor": (3.0, 5.0, 10.0, 20.0), "nearest": (3, 4)}
DETECTED = {"threshold": 2.5, "floor": 10.0, "nearest": 3}

REPAIRS: dict[Kind, dict[str, Repair]] = {
    "hits": {
        "median": Repair(lambda image, _: median(image), {}, {}),
        "decision_median": Repair(lambda image, _, **detector: decision_median(image, **detector), DETECTOR, DETECTED),
        "telea": Repair(
            lambda image, _, radius, **detector: telea(image, judged_hit(image, **detector), radius),
            {**DETECTOR, "radius": (2,)},
            {**DETECTED, "radius": 2},
        ),
        "biharmonic": Repair(
            lambda image, _, **detector: biharmonic(image, judged_hit(image, **detector)), DETECTOR, DETECTED
        ),
    },
    "noise": {
        "median": Repair(_median_of_noise, {}, {}),
        "bm3d": Repair(_bm3d, {"strength": (0.9, 1.0, 1.1), "block": (4, 6, 8)}, {"strength": 1.0, "block": 6}),
    },
    "losses": {
        "median": Repair(fill_median, {}, {}),
        "telea": Repair(telea, {"radius": (1, 2, 3, 5)}, {"radius": 2}),
        "biharmonic": Repair(biharmonic, {}, {}),
    },
}
"""By kind of damage and name. The 3 x 3 median fills losses with the median of the known neighbours."""


def available(kind: Kind) -> list[str]:
    """The repairs for a kind of damage that can run here: `biharmonic` needs scikit-image."""
    missing = set() if find_spec("skimage") else {"biharmonic"}
    return [name for name in REPAIRS[kind] if name not in missing]


def defaults(kind: Kind, name: str) -> dict[str, Any]:
    """The parameters of a repair without tuning."""
    return dict(REPAIRS[kind][name].default)


def repaired(
    kind: Kind, name: str, image: Image, lost: Mask, noise: float = 0.0, parameters: Parameters | None = None
) -> Image:
    """Repair a decrypted image.

    Args:
        kind: Of the damage.
        name: Of the repair.
        image: uint8 (..., H, W), every plane by itself.
        lost: bool, same shape: pixels known to be lost.
        noise: Deviation of the noise in levels, for damage of that kind.
        parameters: The repair's; its defaults where left out.

    Returns:
        uint8, same shape.

    Raises:
        UsageError: There is no such repair for that kind of damage.
        ValueError: Shapes or dtypes do not fit.
    """
    if name not in REPAIRS[kind]:
        raise UsageError(f"{name}: no repair of {kind}: there are {', '.join(REPAIRS[kind])}")
    if image.dtype != np.uint8 or lost.dtype != np.bool_ or image.shape != lost.shape or image.ndim < 2:
        raise ValueError(f"expected uint8 and bool (..., H, W) of one shape, got {image.shape} and {lost.shape}")
    repair = REPAIRS[kind][name]
    chosen = {**repair.default, **(parameters or {})}
    if kind == "noise":
        chosen["noise"] = noise
    result = np.empty_like(image)
    for place in np.ndindex(image.shape[:-2]):
        result[place] = repair.run(np.ascontiguousarray(image[place]), lost[place], **chosen)
    return result
