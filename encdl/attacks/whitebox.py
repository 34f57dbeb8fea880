"""White-box key recovery: by gradients through the network, and by search around a partly known key."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from encdl.attacks.algebra import agile_planes, solvable
from encdl.attacks.base import (
    Attack,
    Finding,
    Scene,
    image_psnr,
    mean_interval,
    reconstruction,
    share_interval,
)
from encdl.attacks.references import RepeatedKeyXor
from encdl.attacks.targets import CipherTarget, FixedXor, Target
from encdl.ciphers.agile import AgileCipher
from encdl.keys.planes import WeakPlanesWarning
from encdl.nn.phases import fold_channels
from encdl.nn.planes import plane_tensor

VICTIM = 10**6

SHARPENING = 9.0
"""How many times steeper the relaxed bits are in the end than in the beginning, so that they come to be bits."""


class KeyPlaneRecovery(Attack):
    """Finds key planes that explain a known pair, and opens another ciphertext with them.

    By gradient descent on relaxed planes; for `agile` by algebra too, as exactly one stack explains a pair. What the
    planes of a known picture are is then no secret: the question is what they tell about the next picture.
    """

    name = "key_plane_recovery"
    about = (
        "White box, one known pair: key planes that explain it, by gradient descent through the network on "
        "relaxed planes or by algebra, whichever explains more; they then have to open other ciphertexts "
        "under the same key."
    )
    modes: ClassVar[tuple[str, ...]] = ("default", "synthetic_nonce", "reused_nonce")

    def references(self) -> tuple[Target, ...]:
        """Keystreams that repeat; the attacker's model of them is an XOR with eight planes."""
        return (FixedXor(), RepeatedKeyXor())

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: PSNR of the other pictures, opened with the planes found."""
        steps = scene.budget(150, 1000)
        known = scene.train[:1]
        ciphertext = target.encrypt(known)
        planes, descended = _descended(target, known, ciphertext, steps, scene)
        explained = descended
        if isinstance(target, CipherTarget) and target.bare and solvable(target.cipher, known):
            assert isinstance(target.cipher, AgileCipher)
            planes = agile_planes(target.cipher, known, ciphertext)
            explained = float((target.cipher.encrypt(known, planes) == ciphertext).float().mean())
        others = target.encrypt(scene.test, VICTIM)
        if isinstance(target, CipherTarget):
            estimates = target.cipher.decrypt(others, planes.expand(len(others), -1, -1, -1, -1).contiguous())
            truth = target.planes(known)
            right = float((planes == truth).float().mean())
        else:
            estimates = others ^ _bytes(planes)
            right = float((_bytes(planes) == ciphertext ^ known).float().mean())
        budget = f"one known pair, {steps} steps of Adam on {planes.numel():,} relaxed bits"
        return reconstruction(
            self,
            target,
            scene,
            estimates,
            budget,
            pixels_explained_by_descent=descended,
            pixels_explained=explained,
            plane_bits_recovered=right,
        )


class PartialKeySearch(Attack):
    """How far a nearly right key opens a picture, and how long the rest of the key takes to search.

    Whoever knows all bits but k finds them by trying 2^k keys, whatever the cipher. What must not be is that a key with
    one wrong bit opens part of the picture: then a search could climb.
    """

    name = "partial_key_search"
    about = (
        "White box, partly known key: pictures opened with keys of which one bit is wrong, which must show "
        "nothing; a climb that takes each unknown bit as the opened picture is smoother, which must guess no "
        "better than a coin; and an exhaustive search, which finds few bits and no more."
    )
    modes: ClassVar[tuple[str, ...]] = ("default", "coprime", "periodic")

    def references(self) -> tuple[Target, ...]:
        """A key repeated over the picture: one wrong bit spoils one pixel in 256."""
        return (RepeatedKeyXor(),)

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: PSNR of pictures opened with a key one bit off."""
        if not isinstance(target, CipherTarget | RepeatedKeyXor):
            near = torch.randint(0, 256, scene.test.shape, generator=scene.generator(), dtype=torch.uint8)
            return reconstruction(
                self, target, scene, near.to(scene.test.device), "not applicable: a stream cipher"
            )
        ciphertexts = target.encrypt(scene.test, VICTIM)
        generator = scene.generator()
        by_distance = {}
        for distance in (1, 2, 4, 16, 64):
            opened = _opened(target, ciphertexts, scene.test, _flips(len(ciphertexts), distance, generator))
            by_distance[str(distance)] = mean_interval(image_psnr(opened, scene.test))[0]
            if distance == 1:
                near = opened
        climbed: dict[str, dict[str, Any]] = {}
        for unknown in (16, 32) if scene.quick else (16, 64, 256):
            right = round(unknown * _climbed(target, ciphertexts[:1], scene.test[:1], unknown, generator))
            climbed[str(256 - unknown)] = {
                "recovered": right / unknown,
                "interval": share_interval(right, unknown),
            }
        unknown = 6 if scene.quick else 10
        found, tried_per_s = _searched(target, ciphertexts[:1], scene.test[:1], unknown)
        finding = reconstruction(
            self,
            target,
            scene,
            near,
            f"all key bits but one; climb: {', '.join(climbed)} bits known; "
            f"search: all but {unknown}, {2**unknown} keys",
            psnr_db_by_wrong_bits=by_distance,
            share_of_unknown_bits_recovered_by_known_bits=climbed,
            searched_bits=unknown,
            search_found_the_key=found,
            keys_per_second=tried_per_s,
            log2_years_for_256_bits=256 - math.log2(max(tried_per_s, 1e-9)) - math.log2(3.15e7),
        )
        climbs = any(each["interval"][0] > 0.5 for each in climbed.values())
        return replace(finding, broken=True) if climbs else finding


def _descended(
    target: Target, known: Tensor, ciphertext: Tensor, steps: int, scene: Scene
) -> tuple[Tensor, float]:
    """Planes uint8 (1, C, P, H, W) that explain a pair, and the share of pixels that they explain."""
    count = target.cipher.planes if isinstance(target, CipherTarget) else 8
    shape = (1, known.shape[1], count, *known.shape[2:])
    start = torch.randn(shape, generator=scene.generator()) * 0.1
    logits = start.to(known.device).requires_grad_()
    optimiser = torch.optim.Adam([logits], 0.3)
    for step in range(steps):
        relaxed = (logits * (1 + SHARPENING * step / steps)).sigmoid()
        loss = _unlikeness(target, known, relaxed, ciphertext)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    planes = (logits.detach() > 0).to(torch.uint8)
    again = (
        target.cipher.encrypt(known, planes) if isinstance(target, CipherTarget) else known ^ _bytes(planes)
    )
    return planes, float((again == ciphertext).float().mean())


def _unlikeness(target: Target, image: Tensor, planes: Tensor, ciphertext: Tensor) -> Tensor:
    """How badly relaxed planes explain a pair, with gradients: by the cipher itself, or by an XOR with eight planes."""
    if isinstance(target, CipherTarget):
        flat, keys = fold_channels(image.float()).unsqueeze(1), fold_channels(planes)
        found = target.cipher.forward(flat, keys)[0].view(image.shape)
        return (1 - ((found - ciphertext) * (2 * math.pi / 256)).cos()).mean()
    plain, wanted = (_bits(each) for each in (image, ciphertext))
    return (plain + planes - 2 * plain * planes - wanted).square().mean()


def _bits(levels: Tensor) -> Tensor:
    """(B, C, H, W) uint8 to (B, C, 8, H, W) float32, plane p the bit p."""
    powers = (1 << torch.arange(8, device=levels.device)).view(1, 1, 8, 1, 1)
    return (levels.int().unsqueeze(2) // powers % 2).float()


def _bytes(planes: Tensor) -> Tensor:
    powers = (1 << torch.arange(8, device=planes.device)).view(1, 1, 8, 1, 1)
    return (planes.int() * powers).sum(2).to(torch.uint8)


def _flips(count: int, distance: int, generator: torch.Generator) -> list[list[int]]:
    """Which of 256 key bits are wrong, for each picture."""
    return [torch.randperm(256, generator=generator)[:distance].tolist() for _ in range(count)]


def _opened(
    target: CipherTarget | RepeatedKeyXor, ciphertexts: Tensor, pictures: Tensor, flips: list[list[int]]
) -> Tensor:
    """Ciphertexts opened with keys in which these bits are wrong."""
    if isinstance(target, RepeatedKeyXor):
        wrong = torch.zeros((len(flips), 256), dtype=torch.uint8)
        for row, bits in zip(wrong, flips, strict=True):
            row[bits] = 128  # the highest bit of so many bytes
        tiles = target.key.flatten() ^ wrong
        repeats = -(-ciphertexts.shape[2] // 16), -(-ciphertexts.shape[3] // 16)
        stream = tiles.view(-1, 1, 16, 16).repeat(1, 1, *repeats)
        return ciphertexts ^ stream[:, :, : ciphertexts.shape[2], : ciphertexts.shape[3]].to(
            ciphertexts.device
        )
    keys = target.image_keys(pictures, VICTIM)
    secrets = [_flipped(one.planes, bits) for one, bits in zip(keys, flips, strict=True)]
    with torch.no_grad():
        return _decrypted(target, ciphertexts, secrets)


def _decrypted(target: CipherTarget, ciphertexts: Tensor, secrets: list[bytes]) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WeakPlanesWarning)
        planes = plane_tensor(secrets, target.spec, ciphertexts.shape[1:], ciphertexts.device)
    return target.cipher.decrypt(ciphertexts, planes)


def _flipped(secret: bytes, bits: list[int]) -> bytes:
    changed = np.frombuffer(secret, dtype=np.uint8).copy()
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
    return changed.tobytes()


def _searched(
    target: CipherTarget | RepeatedKeyXor, ciphertext: Tensor, picture: Tensor, unknown: int
) -> tuple[bool, float]:
    """Try all values of the first `unknown` key bits; whether the smoothest picture is right, and keys a second."""
    started = time.perf_counter()
    rough = []
    for guess in range(1 << unknown):
        wrong = [bit for bit in range(unknown) if guess >> bit & 1]
        rough.append(_roughness(target, ciphertext, picture, wrong))
    return int(np.argmin(rough)) == 0, (1 << unknown) / (time.perf_counter() - started)


def _climbed(
    target: CipherTarget | RepeatedKeyXor,
    ciphertext: Tensor,
    picture: Tensor,
    unknown: int,
    generator: torch.Generator,
) -> float:
    """Share of so many unknown key bits that are right after each was set to what opens the smoother picture."""
    drawn = torch.randint(0, 2, (unknown,), generator=generator)
    wrong = {bit for bit in range(unknown) if drawn[bit]}
    least = _roughness(target, ciphertext, picture, sorted(wrong))
    for bit in range(unknown):
        found = _roughness(target, ciphertext, picture, sorted(wrong ^ {bit}))
        if found < least:
            least, wrong = found, wrong ^ {bit}
    return 1 - len(wrong) / unknown


def _roughness(
    target: CipherTarget | RepeatedKeyXor, ciphertext: Tensor, picture: Tensor, wrong: list[int]
) -> float:
    """Mean absolute difference between neighbours in what a key with these wrong bits opens, in levels."""
    opened = _opened(target, ciphertext, picture, [wrong]).float()
    return float((opened[..., 1:] - opened[..., :-1]).abs().mean())
