from __future__ import annotations

import json

import pytest
import torch

from encdl import ciphers
from encdl.attacks.base import Attack, Scene, guessing, mean_interval, reconstruction, share_interval
from encdl.attacks.targets import MODES, Aes, FixedXor, Target, cipher_target

CIPHER = ciphers.create("agile", {"restorer_width": 4, "restorer_blocks": 0}).eval()


def pictures(count: int = 6, side: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (count, 1, side, side), generator=generator, dtype=torch.uint8)


def scene(test: torch.Tensor) -> Scene:
    labels = torch.zeros(len(test), dtype=torch.int64)
    return Scene(test, test, labels, labels)


class Blind(Attack):
    name = "blind"
    about = "Knows nothing."

    def run(self, target: Target, scene: Scene):
        raise NotImplementedError


@pytest.mark.parametrize("mode", MODES)
def test_modes_encrypt_the_same_number_the_same_way(mode: str) -> None:
    target, images = cipher_target(CIPHER, mode), pictures()
    whole = target.encrypt(images, first=3)
    assert torch.equal(whole[2:], target.encrypt(images[2:], first=5))
    assert not torch.equal(whole, target.under(1).encrypt(images, first=3))


@pytest.mark.parametrize(
    ("mode", "fresh"), [("default", True), ("synthetic_nonce", False), ("reused_nonce", False)]
)
def test_a_picture_encrypted_twice(mode: str, fresh: bool) -> None:
    image = pictures(1)
    target = cipher_target(CIPHER, mode)
    assert torch.equal(target.encrypt(image, 0), target.encrypt(image, 1)) is not fresh


def test_planes_are_those_that_encrypt() -> None:
    images = pictures()
    target = cipher_target(CIPHER)
    assert torch.equal(CIPHER.encrypt(images, target.planes(images, 7)), target.encrypt(images, 7))


def test_references() -> None:
    images = pictures()
    aes, fixed = Aes(), FixedXor()
    assert len({bytes(row.numpy().tobytes()) for row in aes.encrypt(images[:1].expand(6, -1, -1, -1))}) == 6
    assert torch.equal(
        fixed.encrypt(images) ^ images,
        fixed.under(4).encrypt(images[:1], 9).expand(6, -1, -1, -1) ^ images[:1],
    )


def test_a_reconstruction_is_broken_only_by_pictures_own_estimates() -> None:
    truth = pictures(40)
    seen = scene(truth)
    near = (truth.float() + 3).clamp(0, 255)
    found = reconstruction(Blind(), FixedXor(), seen, near, "none")
    assert found.broken
    assert found.more["leaks"]
    assert found.score > 30 > found.baseline
    swapped = reconstruction(Blind(), FixedXor(), seen, near.roll(20, 0), "none")
    assert not swapped.broken
    flat = reconstruction(Blind(), FixedXor(), seen, seen.mean_image.expand_as(truth), "none")
    assert not flat.broken
    assert flat.score == pytest.approx(flat.baseline)
    assert flat.more["advantage_db"] == pytest.approx(0)


def test_perfect_and_infinite_figures_are_json() -> None:
    truth = pictures(2)
    found = reconstruction(Blind(), FixedXor(), scene(truth), truth, "none")
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["score"] == 100
    assert content["interval"] == [100, 100]


def test_shares() -> None:
    low, high = share_interval(50, 100)
    assert low == pytest.approx(1 - high)
    assert 0.33 < low < 0.35
    assert share_interval(0, 10)[0] == 0
    assert not guessing(Blind(), Aes(), 55, 100, 0.5, "none").broken
    assert guessing(Blind(), Aes(), 90, 100, 0.5, "none").broken


def test_mean_interval_of_one_value_knows_nothing() -> None:
    assert mean_interval(torch.tensor([2.0])) == (2.0, -float("inf"), float("inf"))
    assert mean_interval(torch.tensor([1.0, 1.0])) == (1.0, 1.0, 1.0)


def test_a_scene_needs_two_test_pictures() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        scene(pictures(1))
