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

from encdl.audit.attacks.algebra import pack, planes_of_pair, solvable
from encdl.audit.attacks.base import (
    ATTACKS,
    Attack,
    Finding,
    Scene,
    image_psnr,
    mean_interval,
    reconstruction,
    share_interval,
)
from encdl.audit.attacks.references import RepeatedKeyXor
from encdl.audit.attacks.targets import CipherTarget, FixedXor, Target
from encdl.ciphers.nn.phases import fold_channels, to_phases
from encdl.ciphers.nn.plane_tensors import plane_tensor, unpack
from encdl.ciphers.thesis import ThesisCipher
from encdl.keys.planes import WeakPlanesWarning

VICTIM = 10**6

SHARPENING = 9.0
"""How many times steeper the relaxed bits are in the end than in the beginning, so that they come to be bits."""


@ATTACKS.register("key_plane_recovery")
class KeyPlaneRecovery(Attack):
    """Finds key planes that explain a known pair, and opens another ciphertext with them.

    By algebra where exactly one stack explains a pair (`encdl.audit.attacks.algebra`), else by gradient descent on
    relaxed planes. What the planes of a known image are is then no secret: the question is what they tell about the
    next one.
    """

    about = (
        "White box, one known pair: key planes that explain it, by algebra through the network or by gradient descent "
        "on relaxed planes; they then have to open other ciphertexts under the same key."
    )
    modes: ClassVar[tuple[str, ...]] = ("default", "synthetic_nonce", "reused_nonce")

    def references(self) -> tuple[Target, ...]:
        """Keystreams that repeat; the attacker's model of them is an XOR with eight planes."""
        return (FixedXor(), RepeatedKeyXor())

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: PSNR of the other images, opened with the planes found."""
        known = scene.train[:1]
        ciphertext = target.encrypt(known)
        others = scene.ciphertexts(target, scene.test, VICTIM)
        budget, more = "one known pair", dict[str, Any]()
        cipher = target.cipher if isinstance(target, CipherTarget) else None
        planes: Tensor | None = None
        if cipher is not None and solvable(cipher):
            planes = planes_of_pair(cipher, known, ciphertext)
        elif isinstance(cipher, ThesisCipher):
            steps = scene.budget(150, 1000)
            planes = descended(cipher, known, ciphertext, steps, scene.generator())
            budget += f", {steps} steps of Adam on {known.numel() * cipher.planes:,} relaxed bits"
        if cipher is None:
            estimates = others ^ known ^ ciphertext
        elif planes is None:  # fewer than eight planes: of them the mask alone is found
            estimates = others - (ciphertext - known)
        else:
            assert isinstance(target, CipherTarget)
            estimates = cipher.decrypt(others, planes.expand_as(others).contiguous())
            wrong = unpack(planes ^ target.planes(known), cipher.planes)
            more["pixels_explained"] = float((cipher.encrypt(known, planes) == ciphertext).float().mean())
            more["plane_bits_recovered"] = 1 - float(wrong.float().mean())
        return reconstruction(self, target, scene, estimates, budget, **more)


@ATTACKS.register("partial_key_search")
class PartialKeySearch(Attack):
    """How far a nearly right key opens an image, and how long the rest of the key takes to search.

    Whoever knows all bits but k finds them by trying 2^k keys, whatever the cipher. What must not be is that a key with
    one wrong bit opens part of the image: then a search could climb.
    """

    about = (
        "White box, partly known key: images opened with keys of which one bit is wrong, which must show "
        "nothing; a climb that takes each unknown bit as the opened image is smoother, which must guess no "
        "better than a coin; and an exhaustive search, which finds few bits and no more."
    )
    modes: ClassVar[tuple[str, ...]] = ("default", "coprime", "periodic")

    def references(self) -> tuple[Target, ...]:
        """A key repeated over the image: one wrong bit spoils one pixel in 256."""
        return (RepeatedKeyXor(),)

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: PSNR of images opened with a key one bit off."""
        if not isinstance(target, CipherTarget | RepeatedKeyXor):
            near = torch.randint(0, 256, scene.test.shape, generator=scene.generator(), dtype=torch.uint8)
            return reconstruction(self, target, scene, near.to(scene.test.device), "not applicable: a stream cipher")
        ciphertexts = scene.ciphertexts(target, scene.test, VICTIM)
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
            climbed[str(256 - unknown)] = {"recovered": right / unknown, "interval": share_interval(right, unknown)}
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


def descended(
    cipher: ThesisCipher, image: Tensor, ciphertext: Tensor, steps: int, generator: torch.Generator
) -> Tensor:
    """Key planes that explain a pair, by gradient descent on relaxed ones: this cipher takes bits as numbers.

    Args:
        cipher: In evaluation mode.
        image: uint8 (1, C, H, W).
        ciphertext: uint8 of the same shape.
        steps: Of Adam.
        generator: Draws where the descent begins.

    Returns:
        uint8 (1, C, H, W), packed.
    """
    x, c = (to_phases(fold_channels(each.float()).unsqueeze(1)) for each in (image, ciphertext))
    start = torch.randn((len(x), cipher.planes, *image.shape[2:]), generator=generator) * 0.1
    logits = start.to(image.device).requires_grad_()
    optimiser = torch.optim.Adam([logits], 0.3)
    for step in range(steps):
        relaxed = (logits * (1 + SHARPENING * step / steps)).sigmoid()
        found = cipher.encoder(torch.cat([x / 127.5 - 1.0, to_phases(relaxed) * 2 - 1], dim=1)).sigmoid() * 255.0
        loss = (1 - ((found - c) * (2 * math.pi / 256)).cos()).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return pack((logits.detach() > 0).to(torch.uint8)).view_as(image)


def _flips(count: int, distance: int, generator: torch.Generator) -> list[list[int]]:
    """Which of 256 key bits are wrong, for each image."""
    return [torch.randperm(256, generator=generator)[:distance].tolist() for _ in range(count)]


def _opened(
    target: CipherTarget | RepeatedKeyXor, ciphertexts: Tensor, images: Tensor, flips: list[list[int]]
) -> Tensor:
    """Ciphertexts opened with keys in which these bits are wrong."""
    if isinstance(target, RepeatedKeyXor):
        wrong = torch.zeros((len(flips), 256), dtype=torch.uint8)
        for row, bits in zip(wrong, flips, strict=True):
            row[bits] = 128  # the highest bit of so many bytes
        tiles = target.key.flatten() ^ wrong
        repeats = -(-ciphertexts.shape[2] // 16), -(-ciphertexts.shape[3] // 16)
        stream = tiles.view(-1, 1, 16, 16).repeat(1, 1, *repeats)
        return ciphertexts ^ stream[:, :, : ciphertexts.shape[2], : ciphertexts.shape[3]].to(ciphertexts.device)
    keys = target.image_keys(images, VICTIM)
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
    target: CipherTarget | RepeatedKeyXor, ciphertext: Tensor, image: Tensor, unknown: int
) -> tuple[bool, float]:
    """Try all values of the first `unknown` key bits; whether the smoothest image is right, and keys a second."""
    started = time.perf_counter()
    rough = []
    for guess in range(1 << unknown):
        wrong = [bit for bit in range(unknown) if guess >> bit & 1]
        rough.append(_roughness(target, ciphertext, image, wrong))
    return int(np.argmin(rough)) == 0, (1 << unknown) / (time.perf_counter() - started)


def _climbed(
    target: CipherTarget | RepeatedKeyXor, ciphertext: Tensor, image: Tensor, unknown: int, generator: torch.Generator
) -> float:
    """Share of so many unknown key bits that are right after each was set to what opens the smoother image."""
    drawn = torch.randint(0, 2, (unknown,), generator=generator)
    wrong = {bit for bit in range(unknown) if drawn[bit]}
    least = _roughness(target, ciphertext, image, sorted(wrong))
    for bit in range(unknown):
        found = _roughness(target, ciphertext, image, sorted(wrong ^ {bit}))
        if found < least:
            least, wrong = found, wrong ^ {bit}
    return 1 - len(wrong) / unknown


def _roughness(target: CipherTarget | RepeatedKeyXor, ciphertext: Tensor, image: Tensor, wrong: list[int]) -> float:
    """Mean absolute difference between neighbours in what a key with these wrong bits opens, in levels."""
    opened = _opened(target, ciphertext, image, [wrong]).float()
    return float((opened[..., 1:] - opened[..., :-1]).abs().mean())
