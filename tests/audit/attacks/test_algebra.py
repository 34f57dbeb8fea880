from __future__ import annotations

import pytest
import torch

from encdl import ciphers
from encdl.audit.attacks.algebra import corrected, leading, leading_bytes, pack, planes_of_pair, solvable
from encdl.audit.attacks.targets import cipher_target
from encdl.ciphers.nn.plane_tensors import unpack
from tests.audit.attacks.support import SMALL, cipher, scene

SOLVABLE = ("agile", "keystream", "coupled")


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize("name", SOLVABLE)
def test_a_pair_gives_all_planes_of_its_image(name: str) -> None:
    target, images = cipher_target(cipher(name)), scene(16).test[:5]
    found = planes_of_pair(target.cipher, images, target.encrypt(images, 3))
    assert torch.equal(found, target.planes(images, 3))


@pytest.mark.parametrize("size", [(8, 10), (7, 9), (1, 1), (1, 6), (40, 33)], ids=str)
@pytest.mark.parametrize("name", SOLVABLE)
def test_some_stack_leads_from_any_image_to_any_ciphertext(name: str, size: tuple[int, int]) -> None:
    """Hence a ciphertext alone tells nothing, if the planes are uniform."""
    image, wanted = noise(3, 2, *size), noise(3, 2, *size, seed=2)
    planes = planes_of_pair(cipher(name), image, wanted)
    assert torch.equal(cipher(name).encrypt(image, planes), wanted)
    assert torch.equal(cipher(name).decrypt(wanted, planes), image)


def test_it_agrees_with_the_inverse_of_the_mask_network() -> None:
    mask = noise(2, 1, 21, 30)
    assert torch.equal(planes_of_pair(cipher(), torch.zeros_like(mask), mask), cipher().encryption.key_bytes(mask))


@pytest.mark.parametrize("name", SOLVABLE)
def test_leading_bytes_need_masks_around_alone(name: str) -> None:
    """One wrong mask far away spoils nothing here, and of ciphers with a network something near it."""
    keys = noise(1, 1, 128, 128)
    ciphertext = cipher(name).encrypt(torch.zeros_like(keys), keys)
    wrong = ciphertext.clone()
    wrong[..., 64, 64] ^= 85
    right = leading_bytes(cipher(name), wrong, wrong) == keys
    first = leading(cipher(name), keys)
    assert right[..., :12, :12][first[..., :12, :12]].all()
    assert not right[..., 50:80, 50:80][first[..., 50:80, 50:80]].all()


@pytest.mark.parametrize("name", SOLVABLE)
def test_right_planes_are_not_corrected(name: str) -> None:
    keys = noise(1, 1, 20, 20)
    ciphertext = cipher(name).encrypt(torch.zeros_like(keys), keys)
    assert torch.equal(corrected(cipher(name), ciphertext, ciphertext, keys), keys)
    spoilt = torch.where(leading(cipher(name), keys), keys, keys ^ 85)
    found = corrected(cipher(name), ciphertext, ciphertext, spoilt)
    assert torch.equal(found[~leading(cipher(name), keys)], keys[~leading(cipher(name), keys)])


@pytest.mark.parametrize(
    ("name", "planes", "expected"),
    [("agile", 8, True), ("keystream", 8, True), ("coupled", 8, True), ("agile", 4, False), ("thesis", 8, False)],
)
def test_when_it_serves(name: str, planes: int, expected: bool) -> None:
    assert solvable(ciphers.create(name, SMALL | {"planes": planes})) is expected


@pytest.mark.parametrize("planes", [1, 3, 8])
def test_packing(planes: int) -> None:
    packed = noise(2, 3, 5, 4) & (1 << planes) - 1
    assert torch.equal(pack(unpack(packed, planes)), packed)
