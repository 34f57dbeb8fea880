from __future__ import annotations

import pytest
import torch

from encdl.audit.attacks.chosen_plaintext import ChosenPlaintext, coded_images, permutation
from encdl.audit.attacks.targets import cipher_target
from tests.audit.attacks.support import agile, cipher, scene

CPU = torch.device("cpu")


def test_coded_images() -> None:
    shape = torch.Size((1, 4, 6))
    coded = coded_images(shape, CPU)
    assert coded.shape == (1 + 2 * (1 + 5), *shape)  # 24 places take 5 bits
    assert set(coded.unique().tolist()) == {0, 128}
    assert not coded[0].any()
    odd, even = coded[1] > 0, coded[7] > 0
    assert torch.equal(odd, ~even)
    assert even[0, ::2, ::2].all()
    places = torch.zeros(shape, dtype=torch.int64)
    for first, family in ((2, odd), (8, even)):
        for bit in range(5):
            places += ((coded[first + bit] > 0) & family).long() << bit
    assert places.flatten().tolist() == list(range(24))


@pytest.mark.parametrize("keystream", [False, True])
def test_a_known_permutation_is_found(keystream: bool) -> None:
    shape = torch.Size((1, 6, 10))
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(60, generator=generator)
    stream = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) * keystream
    answers = (coded_images(shape, CPU) ^ stream).flatten(1)[:, order].view(-1, *shape)
    places = permutation(answers)
    assert places is not None
    assert torch.equal(order[places], torch.arange(60))


def test_answers_under_fresh_nonces_show_no_permutation() -> None:
    answers = torch.randint(0, 256, (15, 1, 6, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert permutation(answers) is None
    assert permutation(torch.zeros_like(answers)) is None


@pytest.mark.parametrize("mode", ["reused_nonce", "reused_nonce_confusion"])
@pytest.mark.parametrize("name", ["agile", "keystream", "coupled"])
def test_a_reused_nonce_gives_masks_and_permutation_away(name: str, mode: str) -> None:
    finding = ChosenPlaintext().run(cipher_target(cipher(name), mode), scene(16))
    assert finding.broken
    assert finding.score == 100
    assert finding.more["chosen_pixels_explained"] == 1
    reading = "key planes of coupled" if name == "coupled" else "addition of a mask"
    assert finding.more["reading"].removesuffix(" of a permutation") == reading
    assert finding.more["reading"].endswith("of a permutation") is (mode == "reused_nonce_confusion")


@pytest.mark.parametrize("mode", ["confusion", "diffusion", "synthetic_nonce"])
def test_fresh_and_synthetic_nonces_stand(mode: str) -> None:
    finding = ChosenPlaintext().run(agile(mode), scene(16))
    assert not finding.broken
    assert finding.more["chosen_pixels_explained"] < 0.02
