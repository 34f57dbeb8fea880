from __future__ import annotations

import pytest
import torch

from encdl import ciphers
from encdl.attacks.algebra import agile_planes, bits, solvable
from tests.attacks.support import agile, cipher, scene


def test_a_pair_gives_all_planes_of_its_picture() -> None:
    target, images = agile(), scene(16).test[:5]
    found = agile_planes(target.cipher, images, target.encrypt(images, 3))
    assert torch.equal(found, target.planes(images, 3))


def test_some_stack_leads_from_any_picture_to_any_ciphertext() -> None:
    """Hence a ciphertext alone tells nothing, if the planes are uniform."""
    generator = torch.Generator().manual_seed(1)
    image, wanted = (
        torch.randint(0, 256, (3, 2, 8, 10), generator=generator, dtype=torch.uint8) for _ in range(2)
    )
    planes = agile_planes(cipher(), image, wanted)
    assert planes.shape == (3, 2, 8, 8, 10)
    assert torch.equal(cipher().encrypt(image, planes), wanted)
    assert torch.equal(cipher().decrypt(wanted, planes), image)


def test_trained_weights_too() -> None:
    from encdl import weights

    trained, images = weights.load("default").cipher, scene(16).test[:2]
    wanted = torch.flip(images, (3,)) ^ 91
    assert torch.equal(trained.encrypt(images, agile_planes(trained, images, wanted)), wanted)


@pytest.mark.parametrize(
    ("planes", "shape", "expected"),
    [(8, (8, 8), True), (8, (7, 8), False), (8, (8, 7), False), (4, (8, 8), False)],
)
def test_when_it_serves(planes: int, shape: tuple[int, int], expected: bool) -> None:
    small = ciphers.create("agile", {"planes": planes, "restorer_width": 4, "restorer_blocks": 0})
    assert solvable(small, torch.zeros(1, 1, *shape)) is expected
    assert not solvable(ciphers.create("thesis", {}), torch.zeros(1, 1, 8, 8))


def test_bits_by_hand() -> None:
    assert bits(torch.tensor([[[[6.0, 255.0]]]]))[0, :, 0].T.tolist() == [[0, 1, 1, 0, 0, 0, 0, 0], [1] * 8]
