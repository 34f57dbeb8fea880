"""Settings of the study of functional keys, from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from encdl.audit.functional.training import Budget
from encdl.data.npz import NpzImages
from encdl.readers import BACKBONES, Backbone, FunctionalStem, MonaiNet, PlainStem, Reader
from encdl.utils import settings
from encdl.utils.errors import UsageError

METRICS = ("auroc", "accuracy", "dice")
LEAST = {"seeds": 1, "attacked": 1, "judged_images": 1}


@dataclass(frozen=True)
class Plan:
    """See `experiments/functional-pneumoniamnist.yaml` for an example.

    Attributes:
        file: Of a data set, as `encdl.data.npz.NpzImages` takes it.
        metric: What readers are judged by: `auroc`, `accuracy` or `dice`.
        backbone: `name` and `settings` of the backbone behind the plain stem, and behind the functional one unless a
            setting has its own `backbone`.
        settings: One for each W that is compared: arguments of `FunctionalStem` but channels and size.
        class_names: As `NpzImages` takes them.
        width: Channels of the plain stem.
        budget: Of every reader; see `encdl.audit.functional.training.Budget`.
        plaintext_budget: What of it is another for plaintext, where validation prefers that.
        decoder_budget: Of every network that rebuilds images.
        unet: Channels of the levels of the U-Net decoder.
        distil: Share of the plaintext reader's answers in the functional one's loss.
        seeds: Trainings of each.
        attacked: How many of them decoders attack: of each setting the first.
        judged_images: Test images that decoders are judged on, at the most.

    Raises:
        UsageError: A value is out of its range.
    """

    file: str
    metric: str
    backbone: Mapping[str, Any]
    settings: list[dict[str, Any]]
    class_names: list[str] | None = None
    width: int = 16
    budget: Mapping[str, Any] = field(default_factory=dict)
    plaintext_budget: Mapping[str, Any] = field(default_factory=dict)
    decoder_budget: Mapping[str, Any] = field(default_factory=dict)
    unet: list[int] = field(default_factory=lambda: [32, 32, 64, 128, 128, 32])
    distil: float = 0.0
    seeds: int = 5
    attacked: int = 5
    judged_images: int = 400

    def __post_init__(self) -> None:
        settings.check_choice(self, "metric", METRICS)
        settings.check_numbers(self, LEAST)
        if not self.settings or self.backbone.get("name") not in BACKBONES:
            raise UsageError("a study of functional keys needs `settings`, and a `backbone` with a known `name`")
        try:
            Budget(**self.budget), self.budget_of_plaintext(), Budget(**self.decoder_budget)
        except TypeError as error:
            raise UsageError(f"a budget of the study: {error}") from None

    def budget_of_plaintext(self) -> Budget:
        """Of the readers of plaintext."""
        return Budget(**{**self.budget, **self.plaintext_budget})

    def data(self, folder: str) -> NpzImages:
        """The data set."""
        return NpzImages(self.file, folder, self.class_names)

    def plaintext(self, data: NpzImages, seed: int) -> Reader:
        """A reader of images with random weights."""
        torch.manual_seed(seed)
        spec = data.spec
        return self._reader(PlainStem(spec.channels, self.width), self.backbone, len(spec.classes))

    def functional(self, data: NpzImages, number: int, seed: int) -> Reader:
        """A reader of what setting `number` gives away, with random weights."""
        torch.manual_seed(seed)
        spec, chosen = data.spec, dict(self.settings[number])
        backbone = chosen.pop("backbone", self.backbone)
        try:
            stem = FunctionalStem(spec.channels, (spec.height, spec.width), **chosen)
        except TypeError as error:
            raise UsageError(f"settings {number} of the study: {error}") from None
        return self._reader(stem, backbone, len(spec.classes))

    def unet_of(self, planes: int, outputs: int) -> Backbone:
        """The U-Net of the decoder."""
        return MonaiNet(planes, outputs, "BasicUNet", {"features": self.unet}, multiple=16)

    @staticmethod
    def _reader(stem: PlainStem | FunctionalStem, backbone: Mapping[str, Any], classes: int) -> Reader:
        make: Any = BACKBONES[backbone["name"]]
        return Reader(stem, make(stem.width, classes, **backbone.get("settings", {})))


def read(path: Path, given: Mapping[str, Any]) -> Plan:
    """A plan from a YAML file and from the command line, which goes before.

    Raises:
        UsageError: The file is none, or a setting is unknown or out of its range.
    """
    content = settings.content(Plan, path, "a study of functional keys")
    try:
        return settings.filled(Plan, path, content, given)
    except TypeError as error:
        raise UsageError(f"{path}: {error}") from None
