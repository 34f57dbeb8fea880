"""Rows of the statistics: what they hold, what passes and what does not."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from encdl.audit.attacks.targets import Aes, FixedXor, Target
from encdl.audit.security.statistics import PLACES, Noise, rows, statistics
from encdl.metrics.differential import npcr_critical, npcr_pct, uaci_critical
from encdl.metrics.quality import mean_psnr_db, mean_ssim
from encdl.metrics.statistics import chi_square, entropy_bits, mean_adjacent_correlation
from tests.audit.attacks.support import agile, scene

PROMISED = (
    "entropy_bits", "local_entropy_bits", "chi2_pass_pct", "adjacent_correlation", "npcr_pct", "npcr_pass_pct",
    "uaci_pct", "uaci_pass_pct", "psnr_db", "ssim",
)  # fmt: skip


def some_images(count: int = 24) -> torch.Tensor:
    return scene(32, test=count).test


def own() -> dict[str, Target]:
    return {mode: agile(mode) for mode in ("default", "confusion", "diffusion", "synthetic_nonce")}


def test_the_rows() -> None:
    found = rows(own(), None)
    assert list(found) == [
        "network", "confusion", "diffusion", "synthetic_nonce", "fresh_nonce", "aes_256_ctr", "fixed_xor",
        "uniform_noise",
    ]  # fmt: skip
    assert found["network"] is found["fresh_nonce"] is not None
    assert rows({"default": Aes()}, FixedXor())["thesis"] == FixedXor()


@pytest.mark.parametrize("row", ["diffusion", "uniform_noise"])
def test_figures_are_those_of_the_metrics(row: str) -> None:
    images, target = some_images(), rows(own(), None)[row]
    found = statistics(row, target, images, 0)
    assert set(PROMISED) <= set(found)
    ciphertext = target.encrypt(images, 0)
    assert found["entropy_bits"] == pytest.approx(entropy_bits(ciphertext).mean().item())
    assert found["chi2"] == pytest.approx(chi_square(ciphertext).mean().item())
    assert found["adjacent_correlation"] == pytest.approx(mean_adjacent_correlation(ciphertext).mean().item())
    assert found["psnr_db"] == pytest.approx(mean_psnr_db(ciphertext, images).item())
    assert found["ssim"] == pytest.approx(mean_ssim(ciphertext, images).item())
    assert found["npcr_critical_pct"] == npcr_critical(1024)
    assert found["uaci_critical_pct"] == list(uaci_critical(1024))
    for name, (low, high) in found["intervals"].items():
        assert 0 <= low <= found[name] <= high <= 100.001


def test_the_first_and_the_last_pixel_are_changed() -> None:
    assert (PLACES[0], PLACES[-1]) == (0, 1)
    images, seen = some_images(2), []

    class Watched(FixedXor):
        def encrypt(self, images: torch.Tensor, first: int = 0) -> torch.Tensor:
            seen.append((images, first))
            return super().encrypt(images, first)

    statistics("network", Watched(), images, 0)
    changed = [(each ^ images).flatten(1) for each, _ in seen[1:]]
    assert [each[0].nonzero().tolist() for each in changed] == [[[0]], [[256]], [[512]], [[767]], [[1023]]]
    assert {int(each.max()) for each in changed} == {1}
    assert {first for _, first in seen} == {0}
    seen.clear()
    statistics("fresh_nonce", Watched(), images, 0)
    assert len({first for _, first in seen}) == 1 + len(PLACES)


def test_a_stream_cipher_changes_one_pixel_under_a_forced_nonce_and_all_under_a_fresh_one() -> None:
    forced, fresh = (statistics(row, Aes(), some_images(), 0) for row in ("aes_256_ctr", "fresh_nonce"))
    assert forced["npcr_pct"] == pytest.approx(100 / 1024)
    assert forced["npcr_pass_pct"] == 0
    assert fresh["npcr_pct"] == pytest.approx(99.61, abs=0.1)
    assert fresh["uaci_pct"] == pytest.approx(33.46, abs=0.3)


def test_noise_passes_as_often_as_it_should() -> None:
    """95 of 100 times, within a binomial interval; NPCR counts pixels and so moves in steps."""
    images = some_images(96)
    found = statistics("uniform_noise", Noise(), images, 0)
    counts = {"entropy_pass_pct": 96, "local_entropy_pass_pct": 96, "chi2_pass_pct": 96, "uaci_pass_pct": 480}
    for name, count in counts.items():
        passed = round(found[name] / 100 * count)
        assert stats.binomtest(passed, count, 0.95).pvalue > 1e-3, name
    share = stats.poisson.cdf(int(1024 * (1 - npcr_critical(1024) / 100)), 4)
    assert stats.binomtest(round(found["npcr_pass_pct"] * 4.8), 480, share).pvalue > 1e-3
    for name in ("entropy_pass_pct", "local_entropy_pass_pct", "chi2_pass_pct", "correlation_pass_pct"):
        assert found["intervals"][name][1] >= 95


def test_plaintext_passes_nothing() -> None:
    class Open(FixedXor):
        def encrypt(self, images: torch.Tensor, first: int = 0) -> torch.Tensor:
            return images

    found = statistics("network", Open(), some_images(), 0)
    for name in (
        "entropy_pass_pct",
        "local_entropy_pass_pct",
        "chi2_pass_pct",
        "correlation_pass_pct",
        "npcr_pass_pct",
    ):
        assert found[name] == 0
    assert found["psnr_db"] == 60  # what an image without an error counts as
    assert found["ssim"] == pytest.approx(1)


def test_noise_repeats_and_ignores_the_image() -> None:
    images = some_images(3)
    assert torch.equal(Noise().encrypt(images, 5), Noise().under(3).encrypt(255 - images, 5))
    assert npcr_pct(Noise().encrypt(images, 5), Noise().encrypt(images, 6)).min() > 90
