"""Telling who was in the training set of a reader."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Final

import torch
from torch.nn import functional as F

from encdl.audit.attacks.base import ATTACKS, Finding, Scene, auroc, auroc_interval
from encdl.audit.attacks.readers import VICTIM, OnReader
from encdl.audit.attacks.targets import FixedXor, Target

CLASSES: Final = 10
"""Drawn by lot: a reader guesses that of an image it has not seen one time in so many."""


@ATTACKS.register("membership_inference")
class MembershipInference(OnReader):
    """Tells training images by their loss, on a reader that was trained on few (S. Yeom et al., CSF 2018)."""

    about = (
        "The attacker asks a reader about an image with its right key and class, and takes a low loss for a sign that "
        "it was trained on. Its classes were drawn by lot, so that it had to learn its few training images by heart: "
        "the worst case. A reader gives its training set away as far as a plaintext network of the same training does."
    )
    modes: ClassVar[tuple[str, ...]] = ("default",)
    advisory: ClassVar[bool] = True

    def references(self) -> tuple[Target, ...]:
        """Any target whose mask is right: what is attacked is the overfitted network."""
        return (FixedXor(),)

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: area under the ROC curve of members against others; baseline: of guessing."""
        count = min(len(scene.train) // 2, 64 if scene.quick else 256)
        members, others = slice(0, count), slice(count, 2 * count)
        drawn = torch.randint(0, CLASSES, (len(scene.train),), generator=scene.generator())
        scene = replace(scene, train_labels=drawn.to(scene.train.device))
        areas = []
        for victim in (target, None):
            reader = self.trained(
                victim, scene, scene.train[members], scene.train_labels[members], scene.budget(60, 600)
            )
            losses = []
            for part in (members, others):
                images = scene.train[part]
                with torch.no_grad():
                    if victim is None:
                        logits = reader(images)
                    else:
                        shown = self.sight(victim, images, VICTIM + int(part.start))
                        logits = reader(shown.ciphertext, shown.mask)
                losses.append(F.cross_entropy(logits, scene.train_labels[part], reduction="none"))
            areas.append(auroc(-losses[0], -losses[1]))
        low, high = auroc_interval(areas[0], count, count)
        return self.finding(
            target,
            areas[0],
            0.5,
            "AUROC",
            low > 0.5,
            f"{count} members, {count} others, right keys and classes",
            interval=(low, high),
            plaintext_auroc=areas[1],
            plaintext_auroc_interval=auroc_interval(areas[1], count, count),
        )
