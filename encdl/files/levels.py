"""Levels: how the stored integers of an image become what a network takes, numbers from 0 to 1.

    real = slope * stored + intercept        (Hounsfield units in CT)
    level = clip((real - low) / (high - low), 0, 1), and 1 - level for MONOCHROME1

Every kind of `Levels` is a rule for `low` and `high`. A reader keeps its own, so that training, prediction and serving
see the same numbers.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from encdl.utils.errors import UsageError

Array = npt.NDArray[Any]

WINDOWS: Final[dict[str, tuple[float, float]]] = {
    "brain": (40, 80),
    "subdural": (75, 215),
    "stroke": (40, 40),
    "bone": (400, 1800),
    "temporal": (600, 2800),
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "abdomen": (50, 400),
    "liver": (30, 150),
    "spine": (50, 250),
}
"""Centre and width in Hounsfield units, as radiologists commonly set them."""
ANY: Final = ""
"""The modality whose levels hold for all that have none of their own."""


HOUNSFIELD: Final = ("CT", "")
"""Modalities in Hounsfield units, or that nobody knows."""


class LevelsWarning(UserWarning):
    """Levels are asked for that mean something else in a file."""


@dataclass(frozen=True)
class Stored:
    """The meaning of the integers that a file stores.

    Attributes:
        low: The smallest value that their type can hold, in the bits that are used.
        high: The largest one.
        slope: Real value of one step.
        intercept: Real value of 0.
        inverted: Whether the smallest value is shown white (MONOCHROME1).
        modality: DICOM's term, such as "CT" or "MR"; "" if the file has none.
    """

    low: float
    high: float
    slope: float = 1.0
    intercept: float = 0.0
    inverted: bool = False
    modality: str = ""

    @classmethod
    def of(cls, dtype: npt.DTypeLike, **known: Any) -> Stored:
        """Of a type; floats have the range 0 to 1."""
        kind = np.dtype(dtype)
        info = np.iinfo(kind) if kind.kind in "iu" else None
        return cls(**{"low": info.min if info else 0.0, "high": info.max if info else 1.0, **known})

    def real(self, values: Array) -> npt.NDArray[np.float32]:
        """The real values of stored ones, of the same shape."""
        real: npt.NDArray[np.float32] = np.asarray(values, np.float32)
        if (self.slope, self.intercept) != (1.0, 0.0):
            real = real * np.float32(self.slope) + np.float32(self.intercept)
        return real


@dataclass(frozen=True)
class Levels:
    """One rule at most; without any, the full range of the stored type becomes 0 to 1, so that bytes stay bytes.

    Attributes:
        window: Centre and width in real values, or a name of `WINDOWS`; from centre - width/2 to centre + width/2
            (LINEAR_EXACT in DICOM, PS3.3 C.11.2.1.3).
        percentiles: Of the whole image, 0 to 100; (0, 100) stretches from its smallest to its largest value.
        zscore: So many standard deviations of the whole image below its mean become 0, as many above it 1.
        rescale: Apply slope and intercept.
        invert: Turn MONOCHROME1 about, so that dense is bright.

    Raises:
        UsageError: Two rules, or one out of its range.
    """

    window: tuple[float, float] | str | None = None
    percentiles: tuple[float, float] | None = None
    zscore: float | None = None
    rescale: bool = True
    invert: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.window, str):
            if self.window not in WINDOWS:
                raise UsageError(f"there is no window {self.window!r}: give centre and width, or {', '.join(WINDOWS)}")
            object.__setattr__(self, "window", WINDOWS[self.window])
        for name in ("window", "percentiles"):
            if getattr(self, name) is not None:  # of JSON and YAML they are lists
                object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if sum(rule is not None for rule in (self.window, self.percentiles, self.zscore)) > 1:
            raise UsageError("levels follow one of window, percentiles and zscore, not two")
        if self.window is not None and not (len(self.window) == 2 and 0 < float(self.window[1]) < math.inf):
            raise UsageError(f"a window is a centre and a width above 0, not {self.window}")
        if self.percentiles is not None:
            low, high = self.percentiles
            if not 0 <= low < high <= 100:
                raise UsageError(f"percentiles are two rising numbers from 0 to 100, not {low:g} and {high:g}")
        if self.zscore is not None and not 0 < self.zscore < math.inf:
            raise UsageError(f"a z-score is cut at a number of standard deviations above 0, not {self.zscore:g}")

    @property
    def of_image(self) -> bool:
        """Whether `bounds` depends on the values of the image."""
        return self.percentiles is not None or self.zscore is not None

    def bounds(self, real: Array | None, stored: Stored, counts: Array | None = None) -> tuple[float, float]:
        """The real values that become 0 and 1.

        Args:
            real: Real values of the whole image, of any shape; not looked at unless `of_image`. Infinite ones and those
                that are no numbers do not count.
            stored: What the file says; its range serves where there is no rule.
            counts: How many pixels have each of the values; by default each is one.
        """
        if self.window is not None:
            centre, width = map(float, self.window)
            return centre - width / 2, centre + width / 2
        if not self.of_image:
            ends = [stored.slope * end + stored.intercept if self.rescale else end for end in (stored.low, stored.high)]
            return min(ends), max(ends)
        assert real is not None
        counts = np.ones(real.shape, np.int64) if counts is None else counts
        finite = np.isfinite(real)
        real, counts = real[finite], counts[finite]
        if not real.size:
            return 0.0, 1.0
        if self.percentiles is not None:
            return _percentile(real, counts, self.percentiles[0]), _percentile(real, counts, self.percentiles[1])
        mean = float(np.average(real, weights=counts))
        reach = math.sqrt(float(np.average((real - mean) ** 2, weights=counts))) * (self.zscore or 0)
        return mean - reach, mean + reach

    def unit(
        self, values: Array, stored: Stored | None = None, bounds: tuple[float, float] | None = None
    ) -> npt.NDArray[np.float32]:
        """The input of a network: float32 of the same shape, 0 to 1.

        Args:
            values: Stored values, of any shape.
            stored: What the file says of them; by default that their type is used in full.
            bounds: Of `bounds`, if `values` are not the whole image.
        """
        stored = Stored.of(values.dtype) if stored is None else stored
        real = stored.real(values) if self.rescale else np.asarray(values, np.float32)
        low, high = self.bounds(real, stored) if bounds is None else bounds
        # An image of one value becomes black.
        level = np.clip(np.nan_to_num((real - np.float32(low)) / np.float32(max(high - low, 1e-30))), 0, 1)
        result: npt.NDArray[np.float32] = 1 - level if self.invert and stored.inverted else level
        return result

    def to_bytes(
        self, values: Array, stored: Stored | None = None, bounds: tuple[float, float] | None = None
    ) -> npt.NDArray[np.uint8]:
        """`unit` in 256 levels, as readers that learnt from 8-bit images take it; bytes of full range stay the same."""
        levels: npt.NDArray[np.uint8] = np.rint(255 * self.unit(values, stored, bounds)).astype(np.uint8)
        return levels

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and checkpoints; `Levels(**values)` undoes it."""
        plain = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def tell_of_window(window: tuple[float, float] | str | None, stored: Stored) -> None:
    """Warn if a window that was asked for is not of Hounsfield units, which CT alone has."""
    if window is not None and stored.modality not in HOUNSFIELD:
        centre, width = map(float, window)
        warnings.warn(
            f"{stored.modality} has no Hounsfield units: the window {centre:g} {width:g} is taken of its own values",
            LevelsWarning,
            stacklevel=2,
        )


def _percentile(values: Array, counts: Array, percent: float) -> float:
    """`numpy.percentile` of values that are there so many times each: linear between neighbours."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    place = percent / 100 * (float(below[-1]) - 1)
    low, high = (
        float(values[order[np.searchsorted(below, at, "right")]]) for at in (math.floor(place), math.ceil(place))
    )
    return low + (high - low) * (place - math.floor(place))


@dataclass(frozen=True)
class ModalityLevels:
    """The levels of each modality that a reader takes.

    Attributes:
        of: By DICOM's term of the modality; those of `ANY` hold for all others. Without a rule images of 8 bits stay as
            they are, and deeper ones follow `DEEP`.
    """

    of: tuple[tuple[str, Levels], ...] = ()

    @classmethod
    def from_dict(cls, given: Mapping[str, Any] | Levels | ModalityLevels | None) -> ModalityLevels:
        """Of what a recipe or checkpoint says: one rule for all, as {window: lung}, or one for each modality.

        Raises:
            UsageError: It is something else.
        """
        if given is None:
            return DEFAULT
        if isinstance(given, Levels):
            return cls(((ANY, given),))
        if isinstance(given, ModalityLevels):
            return given
        try:
            if given and set(given) <= {each.name for each in fields(Levels)}:
                return cls(((ANY, Levels(**given)),))
            table = [(str(name), each if isinstance(each, Levels) else Levels(**each)) for name, each in given.items()]
        except (TypeError, ValueError):
            raise UsageError(f"levels are rules by modality, as {{CT: {{window: [40, 400]}}}}, not {given}") from None
        return cls(tuple(table))

    def choose(self, stored: Stored) -> Levels:
        """Those of a file's modality."""
        table = dict(self.of)
        own = table.get(stored.modality, table.get(ANY))
        if own is not None:
            return own
        # Bytes stay as they are; of 65,536 levels nobody means all.
        return Levels() if stored.high - stored.low == 255 else DEEP.get(stored.modality, DEEP[ANY])

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `from_dict` undoes it."""
        return {name: levels.to_dict() for name, levels in self.of}


DEFAULT: Final = ModalityLevels()
DEEP: Final = {
    "CT": Levels(window="abdomen"),
    "MR": Levels(percentiles=(0.5, 99.5)),
    "PT": Levels(percentiles=(0, 99.9)),
    ANY: Levels(percentiles=(0, 100)),
}
"""Of images that are not of 8 bits, for readers that say nothing."""
