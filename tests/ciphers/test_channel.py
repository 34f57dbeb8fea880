"""Damage of a stored ciphertext, in the order of its file and brought back into the image's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from encdl.ciphers import postprocess
from encdl.ciphers.channel import file_keys, stored
from encdl.ciphers.damage import DAMAGES, LostRun, SaltPepper


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(9))


def test_nonces_are_drawn() -> None:
    first, again, other = (file_keys(3, generator(seed)) for seed in (0, 0, 1))
    assert [key.nonce for key in first] == [key.nonce for key in again]
    assert len({key.nonce for key in (*first, *other)}) == 6


@pytest.mark.parametrize("order", postprocess.NAMES)
@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_not_lost_or_hit_comes_back(order: str, name: str) -> None:
    x = noise(3, 2, 12, 10)
    before = x.clone()
    damaged, lost = stored(DAMAGES[name], x, generator(), order)
    assert torch.equal(x, before)
    assert (damaged.dtype, lost.dtype) == (torch.uint8, torch.bool)
    assert damaged.shape == lost.shape == x.shape
    again = stored(DAMAGES[name], x, generator(), order)
    assert torch.equal(damaged, again[0])
    assert torch.equal(lost, again[1])
    if name == "quarter_lost":
        assert torch.equal(damaged[~lost], x[~lost])
        assert not torch.equal(damaged, x)


def test_hits_stay_as_many_under_the_interleaver() -> None:
    x = torch.full((2, 1, 64, 64), 100, dtype=torch.uint8)
    hit = stored(SaltPepper(0.05), x, generator())[0] != x
    assert hit.double().mean().item() == pytest.approx(0.05, abs=0.01)


def test_a_lost_quarter_of_the_file_is_a_quarter_of_the_image_all_over_it() -> None:
    _, lost = stored(LostRun(0.25), noise(4, 1, 32, 32), generator())
    assert lost.flatten(1).sum(1).tolist() == [256] * 4
    blocks = lost.view(4, 4, 8, 4, 8).float().mean((2, 4))
    assert blocks.min() > 0.1
    assert blocks.max() < 0.4


def test_keys_may_be_given() -> None:
    x, keys = noise(2, 1, 16, 16), file_keys(2, generator(5))
    first, second = (stored(LostRun(0.5), x, generator(), keys=each)[1] for each in (keys, file_keys(2, generator(6))))
    assert torch.equal(first, stored(LostRun(0.5), x, generator(), keys=keys)[1])
    assert not torch.equal(first, second)
