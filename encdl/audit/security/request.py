"""An audit that was asked for: everything that decides its figures."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace

from torch import Tensor

from encdl.audit.attacks.targets import Target, cipher_target
from encdl.audit.security import image_sets
from encdl.audit.security.settings import BUDGETS, Budget, Settings
from encdl.audit.security.subject import Subject, of_reference, of_weights
from encdl.ciphers import weights
from encdl.keys.sequences import DEFAULT_MAP
from encdl.utils import records

BASELINE = "thesis"
"""Weights that stand beside the audited ones."""


@dataclass(frozen=True)
class Order:
    """A request for an audit.

    Attributes:
        weights: Name or file of a cipher's weights; or, with `reference`, a name of
            `encdl.audit.security.subject.REFERENCES`.
        reference: Whether a known scheme is audited instead.
        data: As for `encdl.audit.security.image_sets.cuts`.
        data_dir: The folder of sets that are not embedded.
        device: "cpu" or "cuda".
        seed: Of all draws.
        budget: How much is measured.
        sequence: The map behind the key planes.
    """

    weights: str = "default"
    reference: bool = False
    data: str = "embedded"
    data_dir: str | None = None
    device: str = "cpu"
    seed: int = 0
    budget: Budget = BUDGETS["cpu"]
    sequence: str = DEFAULT_MAP

    @classmethod
    def of(cls, settings: Settings, device: str) -> Order:
        """The order of these settings, on a device that is there."""
        return cls(
            settings.reference or settings.weights,
            bool(settings.reference),
            settings.data,
            settings.data_dir,
            device,
            settings.seed,
            settings.chosen_budget(device),
            settings.map,
        )

    def subject(self) -> Subject:
        """The subject of the audit."""
        if self.reference:
            return of_reference(self.weights)
        return of_weights(self.weights, self.device, self.sequence)

    def thesis(self) -> Target | None:
        """The baseline of the thesis, with the shipped weights; None where it is audited itself."""
        if self.weights == BASELINE:
            return None
        return cipher_target(weights.load(BASELINE, device=self.device).cipher, "default", self.sequence)

    def statistic_images(self) -> Tensor:
        """The statistics' images, uint8 (N, C, S, S)."""
        budget = self.budget
        return image_sets.statistic_images(
            self.data, self.data_dir, budget.statistic_side, budget.statistic_images, self.device, self.seed
        )

    def cuts(self) -> image_sets.Cuts:
        """The attacks' images."""
        budget = self.budget
        found = image_sets.cuts(
            self.data, self.data_dir, budget.side, budget.train, budget.test, self.device, self.seed, budget.small
        )
        return replace(found, scene=replace(found.scene, patience=budget.patience))

    def digest(self) -> str:
        """Changes with what is audited, how, on which files, and the code.

        Of uncommitted code nothing is known, so it changes always. Not with the device: an audit may go on elsewhere,
        and each part's figures say where they were measured.
        """
        subject, commit = self.subject(), records.commit()
        uncommitted = time.time_ns() if commit.endswith("+changes") else 0
        settings = {name: value for name, value in asdict(self).items() if name != "device"}
        files = image_sets.files_digest(self.data, self.data_dir)
        origin = [settings, subject.name, subject.weights, files, commit, uncommitted]
        return hashlib.sha256(json.dumps(origin).encode()).hexdigest()[:16]
