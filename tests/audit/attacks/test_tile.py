from __future__ import annotations

import pytest
import torch

from encdl.audit.attacks.tile import TileGuess, score, tile_attack
from encdl.keys import PlaneSpec, key_planes
from encdl.metrics.quality import psnr_db
from encdl.utils.errors import UsageError
from tests.mni import mni_slice


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def tiled(period: int, image: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """A keystream tile added over the whole image."""
    channels, height, width = image.shape
    repeats = -(-height // period), -(-width // period)
    return image + noise(channels, period, period, seed=seed).repeat(1, *repeats)[:, :height, :width]


@pytest.mark.parametrize("period", [2, 7, 16, 33, 64])
def test_a_repeated_keystream_is_broken(period: int) -> None:
    image = mni_slice()[0]
    ciphertext = tiled(period, image)
    guess = tile_attack(ciphertext)
    assert guess.period == period
    assert guess.confidence > 100
    result = score(guess, image)
    assert result.leaks
    assert result.correlation > 0.99
    assert psnr_db(guess.estimate[None], image[None]).item() > 40
    assert torch.equal(guess.tile, noise(1, period, period))


def test_a_tile_too_large_to_repeat_often_still_shows_the_image() -> None:
    image = mni_slice()[0]
    result = score(tile_attack(tiled(95, image)), image)
    assert result.leaks
    assert result.correlation > 0.5


@pytest.mark.parametrize("seed", range(6))
def test_a_full_keystream_is_not_broken(seed: int) -> None:
    image = mni_slice()[0]
    guess = tile_attack(image + noise(*image.shape, seed=seed))
    result = score(guess, image)
    assert guess.confidence < 5
    assert not result.leaks
    assert result.correlation < 0.1


def test_every_channel_has_its_own_tile() -> None:
    image = torch.cat([mni_slice(index)[0] for index in (60, 80, 100)])
    guess = tile_attack(tiled(24, image))
    assert guess.period == 24
    assert guess.tile.shape == (3, 24, 24)
    assert score(guess, image).correlation > 0.99


def test_a_grey_background_only_shifts_the_estimate() -> None:
    image = mni_slice()[0] // 2 + 50
    guess = tile_attack(tiled(16, image))
    assert torch.equal(guess.estimate + 50, image)


def keystream(spec: PlaneSpec, height: int, width: int) -> torch.Tensor:
    """The bytes of packed key planes: the simplest cipher that uses them."""
    return torch.from_numpy(key_planes([bytes(range(32))], spec, 1, height, width))[0]


@pytest.mark.filterwarnings("ignore::encdl.keys.LeakyExpansionWarning")
def test_key_planes_leak_when_periodic_and_not_when_full() -> None:
    image = mni_slice()[0]
    for spec, leaks in ((PlaneSpec(expansion="periodic", period=16), True), (PlaneSpec(), False)):
        guess = tile_attack(image + keystream(spec, *image.shape[1:]))
        assert score(guess, image).leaks is leaks
        assert (guess.period == 16) is leaks


def test_given_periods_are_the_only_candidates() -> None:
    image = mni_slice()[0]
    assert tile_attack(tiled(16, image), [32, 12, 48]).period in (32, 48)
    assert tile_attack(tiled(16, image), (period for period in (9, 16))).period == 16


def test_constant_images_score_nothing() -> None:
    flat = torch.full((1, 16, 16), 5, dtype=torch.uint8)
    guess = tile_attack(flat)
    assert guess.period == 2
    assert score(guess, flat).correlation == 0.0
    assert not score(guess, flat).leaks


def test_wrong_input_is_refused() -> None:
    ciphertext = noise(1, 16, 16)
    with pytest.raises(TypeError, match="uint8"):
        tile_attack(ciphertext.float())
    for bad in (ciphertext[0], noise(1, 3, 16)):
        with pytest.raises(ValueError, match=r"\(C, H, W\)"):
            tile_attack(bad)
    for periods in ([], [0], [9]):
        with pytest.raises(UsageError, match="from 1 to 8"):
            tile_attack(ciphertext, periods)
    with pytest.raises(ValueError, match="expected an image"):
        score(TileGuess(ciphertext, ciphertext, 2, 0.0), noise(1, 8, 8))
