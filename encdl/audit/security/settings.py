"""The settings of an audit: from a YAML file, from the command line, or as they are by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from encdl.keys.sequences import DEFAULT_MAP, MAPS, unknown_map
from encdl.utils import settings
from encdl.utils.errors import UsageError

SMALLEST_SIZE, STEP = 16, 4
"""Pixels of the smallest attacked image, and what its side is a multiple of: blocks and scales divide it."""

FEWEST_IMAGES: Final = 64
"""Training images of an attacker: he sets some aside, and takes half of the rest for estimates of keystreams."""


@dataclass(frozen=True)
class Budget:
    """How much is measured, and what the attackers have.

    Attributes:
        every_mode: Whether all modes and references are tried, or the default mode and one reference alone.
        side: Height and width in pixels of attacked images.
        train: Training images of the attackers.
        test: Images under attack.
        attacker_seeds: How often an attack that draws is carried out, each time with draws of its own.
        small: Attackers' networks are small.
        patience: See `encdl.audit.attacks.base.Scene`.
        statistic_side: Height and width of the statistics' images.
        statistic_images: How many of them.
        sequences: How many sequences NIST's tests take.
        sequence_bits: Length of each.
    """

    every_mode: bool
    side: int
    train: int
    test: int
    attacker_seeds: int
    small: bool
    patience: int
    statistic_side: int
    statistic_images: int
    sequences: int
    sequence_bits: int


BUDGETS: Final[dict[str, Budget]] = {
    "quick": Budget(False, 32, 512, 128, 1, True, 1, 64, 100, 100, 2**14),
    "cpu": Budget(True, 32, 2048, 256, 1, True, 4, 128, 100, 200, 2**17),
    "accelerator": Budget(True, 64, 8192, 256, 3, False, 1, 128, 200, 400, 2**17),
}
"""By name: minutes on two cores; at most half an hour on one core; minutes on a GPU of a data centre."""


@dataclass(frozen=True)
class Settings:
    """The settings of an audit.

    Attributes:
        weights: Name or file of a cipher's weights.
        reference: A name of `encdl.audit.security.subject.REFERENCES`, to audit a known scheme instead; "" for none.
        data: Name of the images, as `encdl.audit.security.image_sets.cuts` takes it.
        data_dir: The folder of sets that are not embedded.
        budget: One of `BUDGETS`; "" for that of the device.
        size: Height and width in pixels of attacked images; None as the budget has it, like the next two.
        images: Training images of the attackers.
        attacker_seeds: See `Budget`.
        map: The sequence behind the key planes.
        seed: Of all draws; attackers' seeds count up from it.
        device: auto, cpu or cuda.
        jobs: Measurements at a time.

    Raises:
        UsageError: A value is out of its range.
    """

    weights: str = "default"
    reference: str = ""
    data: str = "embedded"
    data_dir: str | None = None
    budget: str = ""
    size: int | None = None
    images: int | None = None
    attacker_seeds: int | None = None
    map: str = DEFAULT_MAP
    seed: int = 0
    device: str = "auto"
    jobs: int = 1

    def __post_init__(self) -> None:
        least = {"seed": 0, "jobs": 1, "size": SMALLEST_SIZE, "images": FEWEST_IMAGES, "attacker_seeds": 1}
        settings.check_numbers(self, least, optional=("size", "images", "attacker_seeds"))
        if self.size is not None and self.size % STEP:
            raise UsageError(f"--size must be a multiple of {STEP}, got {self.size}")
        settings.check_choice(self, "budget", ("", *BUDGETS))
        settings.check_choice(self, "device", ("auto", "cpu", "cuda"))
        for name in ("weights", "data", "map", "reference"):
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"{settings.option(name)} must be a name, got {getattr(self, name)!r}")
        if self.map not in MAPS:
            raise unknown_map(self.map)

    def chosen_budget(self, device: str) -> Budget:
        """The budget, with what was set beside it."""
        named = self.budget or ("accelerator" if device.startswith("cuda") else "cpu")
        usual = BUDGETS[named]
        return replace(
            usual,
            side=self.size or usual.side,
            train=self.images or usual.train,
            attacker_seeds=self.attacker_seeds or usual.attacker_seeds,
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain values, which `read` takes."""
        return asdict(self)


def read(path: Path | None, given: Mapping[str, Any]) -> Settings:
    """Settings from a file and from the command line, which goes before.

    Args:
        path: A YAML file of some of the settings.
        given: Settings by name; None where the user gave none.

    Raises:
        UsageError: The file is none, or a setting is unknown or out of its range.
    """
    return settings.filled(Settings, path, settings.content(Settings, path, "an audit"), given)
