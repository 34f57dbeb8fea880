"""Drawing of synthetic lesions as a MONAI transform; apart, because MONAI takes seconds to import."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import RandomizableTransform

from encdl.data.lesions import SITES, draw_lesion, without_sites


class SyntheticLesion(RandomizableTransform):  # type: ignore[misc]  # MONAI has no types
    """Draws a SYNTHETIC lesion into images of label 1; a function of the sample and of the random state only."""

    def __call__(self, sample: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A new sample: `image` uint8 (1, H, W) and `label`."""
        drawn = without_sites(sample)
        if sample["label"]:
            drawn["image"] = draw_lesion(sample["image"], sample[SITES], self.R)
        return drawn
