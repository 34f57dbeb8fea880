from __future__ import annotations

import hashlib
import itertools
import math

import pytest
import torch
from scipy import stats

from encdl.ciphers.postprocess import Confusion, keyed_permutation
from encdl.metrics.statistics import histogram, mean_adjacent_correlation
from tests.ciphers.postprocess.support import image_keys
from tests.mni import mni_slice


def secrets(count: int) -> list[bytes]:
    return [hashlib.sha256(str(index).encode()).digest() for index in range(count)]


@pytest.mark.parametrize("count", [*range(1, 40), 255, 256, 257, 197 * 233, 3 * 101 * 67])
def test_every_position_once(count: int) -> None:
    permuted = keyed_permutation(secrets(2), count)
    assert permuted.dtype == torch.int64
    assert torch.equal(permuted.sort(1).values, torch.arange(count).expand(2, count))


def test_different_secrets_permute_differently() -> None:
    first, second = keyed_permutation(secrets(2), 4096)
    assert (first == second).sum().item() < 10
    assert (first == torch.arange(4096)).sum().item() < 10


@pytest.mark.parametrize("count", [3, 4])
def test_all_permutations_of_a_few_positions_occur_about_equally(count: int) -> None:
    drawn = [tuple(row) for row in keyed_permutation(secrets(2400), count).tolist()]
    counts = [drawn.count(order) for order in itertools.permutations(range(count))]
    assert min(counts) > 0
    assert stats.chisquare(counts).pvalue > 1e-4


def test_positions_go_anywhere_with_equal_chance() -> None:
    permuted = keyed_permutation(secrets(3000), 50)
    for place in (0, 1, 24, 49):
        counts = torch.bincount(permuted[:, place], minlength=50)
        assert stats.chisquare(counts.numpy()).pvalue > 1e-4


def test_neighbours_are_torn_apart() -> None:
    """The distance between images of neighbours is that of a random permutation: n/3 in the mean."""
    permuted = keyed_permutation(secrets(1), 256 * 256)[0].double()
    for lag in (1, 255, 256, 257):
        distance = (permuted[lag:] - permuted[:-lag]).abs().mean().item() / 65536
        assert distance == pytest.approx(1 / 3, abs=4 * 0.236 / 256)


def test_an_image_loses_its_structure_and_keeps_its_histogram() -> None:
    image, keys = mni_slice(), image_keys(1)
    ciphertext = Confusion().apply(image, keys)
    assert mean_adjacent_correlation(ciphertext).item() < 4 / math.sqrt(image.numel())
    assert torch.equal(histogram(ciphertext), histogram(image))


def test_channels_are_mixed() -> None:
    image = torch.zeros(1, 3, 40, 40, dtype=torch.uint8)
    image[:, 0] = 255
    share = (Confusion().apply(image, image_keys(1)) == 255).double().mean((0, 2, 3))
    assert share.tolist() == pytest.approx([1 / 3] * 3, abs=0.05)


def test_damage_stays_local_and_a_lost_block_is_scattered() -> None:
    lost = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    lost[..., :32, :32] = True
    damaged = Confusion().undo_lost(lost, image_keys(1))
    assert damaged.sum() == lost.sum()
    quarters = damaged.view(2, 32, 2, 32).double().mean((1, 3)).flatten()
    assert quarters.tolist() == pytest.approx([0.25] * 4, abs=0.06)


def test_the_range_is_checked() -> None:
    for count in (0, 2**30 + 1):
        with pytest.raises(ValueError, match="cannot permute"):
            keyed_permutation(secrets(1), count)
    assert keyed_permutation([], 5).shape == (0, 5)
