from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from encdl.metrics.differential import npcr_critical, npcr_pct, uaci_critical, uaci_pct
from tests.mni import mni_slice

# side, NPCR at least, UACI from, UACI to: alpha = .05, rounded as published figures are.
CRITICAL = [
    (28, 99.2429, 31.807, 35.120),
    (64, 99.4491, 32.739, 34.188),
    (128, 99.5292, 33.101, 33.826),
    (224, 99.5636, 33.257, 33.671),
    (256, 99.5693, 33.282, 33.645),
    (512, 99.5893, 33.373, 33.554),
]


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_by_hand() -> None:
    a = torch.tensor([[[[0, 0, 10, 255]]], [[[1, 2, 3, 4]]]], dtype=torch.uint8)
    b = torch.tensor([[[[255, 0, 61, 0]]], [[[1, 2, 3, 4]]]], dtype=torch.uint8)
    assert npcr_pct(a, b).tolist() == [75.0, 0.0]
    assert uaci_pct(a, b).tolist() == pytest.approx([100 * (255 + 51 + 255) / 255 / 4, 0.0])
    assert torch.equal(uaci_pct(a, b), uaci_pct(b, a))


def test_agrees_with_numpy_on_real_images() -> None:
    a, b = mni_slice(80), mni_slice(90)
    x, y = a.numpy().astype(int), b.numpy().astype(int)
    assert npcr_pct(a, b).item() == pytest.approx(100 * np.mean(x != y))
    assert uaci_pct(a, b).item() == pytest.approx(100 * np.mean(np.abs(x - y)) / 255)


@pytest.mark.parametrize(("side", "npcr", "low", "high"), CRITICAL)
def test_critical_values(side: int, npcr: float, low: float, high: float) -> None:
    assert npcr_critical(side * side, 0.05) == pytest.approx(npcr, abs=5.1e-5)
    assert uaci_critical(side * side, 0.05) == pytest.approx((low, high), abs=5.1e-4)


def test_critical_values_against_the_exact_distribution() -> None:
    n = 128 * 128
    assert npcr_critical(n, 0.05) == pytest.approx(100 * stats.binom.ppf(0.05, n, 255 / 256) / n, abs=0.01)
    levels = np.abs(np.subtract.outer(np.arange(256), np.arange(256))).ravel() / 255
    margin = stats.norm.ppf(0.975) * levels.std() / np.sqrt(n)
    expected = 100 * (levels.mean() - margin), 100 * (levels.mean() + margin)
    assert uaci_critical(n, 0.05) == pytest.approx(expected, rel=1e-12)


def test_unrelated_noise_passes_as_often_as_the_level_says() -> None:
    """UACI within a binomial interval of 95 %; NPCR of its own share, as it counts pixels and so moves in steps."""
    a, b = noise(2000, 1, 32, 32, seed=1), noise(2000, 1, 32, 32, seed=2)
    low, high = uaci_critical(1024, 0.05)
    uaci = (uaci_pct(a, b) >= low) & (uaci_pct(a, b) <= high)
    npcr = npcr_pct(a, b) >= npcr_critical(1024, 0.05)
    share = stats.binom.sf(np.ceil(npcr_critical(1024, 0.05) / 100 * 1024) - 1, 1024, 255 / 256)
    assert 0.93 < share < 0.98
    for passed, expected in ((uaci, 0.95), (npcr, share)):
        assert stats.binomtest(int(passed.sum()), len(passed), expected).pvalue > 1e-3


def test_wrong_input_is_refused() -> None:
    a = noise(1, 1, 4, 4, seed=0)
    with pytest.raises(ValueError, match="one shape"):
        npcr_pct(a, a[..., 1:])
    with pytest.raises(TypeError, match="uint8"):
        uaci_pct(a, a.float())
    for n_pixels, alpha in ((0, 0.05), (16, 0.0), (16, 1.0)):
        with pytest.raises(ValueError, match="alpha"):
            npcr_critical(n_pixels, alpha)
        with pytest.raises(ValueError, match="alpha"):
            uaci_critical(n_pixels, alpha)
