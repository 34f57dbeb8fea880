"""Chosen plaintexts: what a few images of the attacker's choice tell about the keystream and the permutation."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from encdl.audit.attacks.base import ATTACKS, Attack, Finding, Scene, reconstruction
from encdl.audit.attacks.known_pair import Opener, openers
from encdl.audit.attacks.references import RepeatedKeyXor
from encdl.audit.attacks.targets import FixedXor, Target

LEVEL = 128
"""What a chosen pixel is set to beside black: under any mask its ciphertext then changes."""

VICTIM = 10**6
"""Number of the first image under attack: no nonce of a chosen image, if nonces are fresh."""


@ATTACKS.register("chosen_plaintext")
class ChosenPlaintext(Attack):
    """Recovers permutation, masks and key planes from black, constant and coded images, if nonces are reused."""

    about = (
        "The victim encrypts a black image, images that code the place of each pixel in binary, and a few "
        "more of the attacker's choice. From these: the permutation, the masks, and for a known network all "
        "key planes; with them the attacker opens other ciphertexts under the same key."
    )
    seeded: ClassVar[bool] = False
    modes: ClassVar[tuple[str, ...]] = (
        "default",
        "confusion",
        "diffusion",
        "synthetic_nonce",
        "reused_nonce",
        "reused_nonce_confusion",
        "reused_nonce_diffusion",
    )

    def references(self) -> tuple[Target, ...]:
        """Keystreams that repeat."""
        return (FixedXor(), RepeatedKeyXor())

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: PSNR of the test images that the best of several readings of the answers opens."""
        shape = scene.test.shape[1:]
        queries = torch.cat([coded_images(shape, scene.test.device), scene.train[:8]])
        answers = target.encrypt(queries)
        black, checks = answers[:1], slice(len(queries) - 8, len(queries))
        readings: dict[str, Opener] = {}
        for name, places in {"": None, " of a permutation": permutation(answers[: len(queries) - 8])}.items():
            placed = _placed(black, places)
            for reading, opener in openers(target, torch.zeros_like(placed), placed).items():
                readings[reading + name] = lambda c, o=opener, p=places: o(_placed(c, p))  # type: ignore[misc]
        right = {
            name: float((opener(answers[checks]) == queries[checks]).float().mean())
            for name, opener in readings.items()
        }
        best = max(right, key=lambda name: right[name])
        victim = scene.ciphertexts(target, scene.test, VICTIM)
        return reconstruction(
            self,
            target,
            scene,
            readings[best](victim),
            f"{len(queries)} chosen images under the victim's key",
            reading=best,
            chosen_pixels_explained=right[best],
        )


def coded_images(shape: torch.Size, device: torch.device) -> Tensor:
    """A black image; for each of two families of pixels, one with it bright, and one for each bit of their places.

    Families: the pixels of odd row or column, then those of even row and column, which a network on 2 x 2 phases may
    let reach others. uint8 (1 + 2 * (1 + bits), C, H, W).
    """
    pixels = shape.numel()
    place = torch.arange(pixels, device=device).view(shape)
    even = torch.zeros(shape, dtype=torch.bool, device=device)
    even[:, ::2, ::2] = True
    images = [torch.zeros(shape, dtype=torch.bool, device=device)]
    for family in (~even, even):
        images.append(family)
        images += [family & ((place >> bit) & 1).bool() for bit in range((pixels - 1).bit_length())]
    return torch.stack(images).to(torch.uint8) * LEVEL


def permutation(answers: Tensor) -> Tensor | None:
    """Where each pixel went, read off the answers to `coded_images`: int64 (pixels,), or None if nowhere clear."""
    flat = answers.flatten(1)
    changed = flat[1:] != flat[:1]
    bits = len(changed) // 2 - 1
    powers = 1 << torch.arange(bits, device=flat.device).unsqueeze(1)
    first, second = changed[: bits + 1], changed[bits + 1 :]
    code = torch.where(first[0], (first[1:] * powers).sum(0), (second[1:] * powers).sum(0))
    places = torch.full((flat.shape[1],), -1, dtype=torch.int64, device=flat.device)
    if int(code.max()) >= len(places):
        return None
    places[code] = torch.arange(len(places), device=flat.device)
    return places if bool((places >= 0).all()) else None


def _placed(ciphertext: Tensor, places: Tensor | None) -> Tensor:
    """The bytes put back to the pixels that they come from."""
    return ciphertext if places is None else ciphertext.flatten(1)[:, places].view_as(ciphertext)
