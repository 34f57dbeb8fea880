"""The figures of a cipher without damage: which there are, that they repeat, and what the references give."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from encdl.audit.evaluation import ROWS, SIZES, Evaluation, per_seed, resized
from encdl.keys.planes import PlaneSpec
from encdl.metrics.differential import npcr_critical, uaci_critical
from encdl.metrics.quality import PSNR_CAP_DB
from tests.additive import AdditiveCipher
from tests.mni import mni_slice

STATISTICS = {"entropy_bits", "adjacent_correlation", "npcr_pct", "uaci_pct"}


def evaluation(cipher: Any = None, seed: int = 0) -> Evaluation:
    return Evaluation(cipher or AdditiveCipher(), PlaneSpec(), "cpu", seed)


def silent(step: str) -> None:
    assert step


def figures(images: list[Tensor], cipher: Any = None, seed: int = 0) -> dict[str, Any]:
    return evaluation(cipher, seed).figures(images, 2, 2, silent)


def slices(*indices: int, side: int = 48) -> list[Tensor]:
    return [mni_slice(index, side, side)[0] for index in indices]


class ByContent(AdditiveCipher):
    """Adds the image's mean as well; `decrypt` does not matter here."""

    keyed_mask = False

    def encrypt(self, image: Tensor, key_planes: Tensor) -> Tensor:
        shift = image.float().mean((1, 2, 3), keepdim=True).to(torch.uint8)
        return super().encrypt(image, key_planes) + shift


def test_the_names_of_the_figures() -> None:
    found = figures(slices(70, 90))
    scalars = {"exact_fraction", "exact_pixel_fraction", "wrong_key_psnr_db", "mean_image_psnr_db"}
    assert set(found) == STATISTICS | scalars
    for name in STATISTICS:
        assert list(found[name]) == ["network", "confusion", "diffusion", "synthetic_nonce"]
    assert found["exact_fraction"] == found["exact_pixel_fraction"] == 1.0
    references = evaluation().references(slices(70, 90), 2)
    assert set(references) == {"aes_256_ctr", "fixed_xor"}
    assert all(set(row) == STATISTICS for row in references.values())


def test_content_activity_is_told_of_masks_that_depend_on_content_alone() -> None:
    names = {"content_activity", "content_activity_neighbour", "content_activity_unrelated"}
    assert names <= set(figures(slices(70, 90), ByContent()))
    assert not names & set(figures(slices(70, 90)))
    none = dict.fromkeys(names, 0.0)
    assert evaluation().activity(slices(70, 90)) == pytest.approx(none, abs=1e-12)


def test_the_same_seed_gives_the_same_figures_and_another_one_others() -> None:
    first, again, other = (figures(slices(70, 90), seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first["wrong_key_psnr_db"] != other["wrong_key_psnr_db"]
    assert first["mean_image_psnr_db"] == other["mean_image_psnr_db"]


def test_the_global_generator_neither_decides_nor_is_moved() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = figures(slices(90))
    assert torch.equal(torch.rand(2), expected)
    assert figures(slices(90)) == first


def test_a_wrong_key_shows_nothing() -> None:
    found = figures(slices(70, 90))
    assert found["wrong_key_psnr_db"] < found["mean_image_psnr_db"]


def test_the_references_beside_our_rows() -> None:
    aes, fixed = (evaluation().statistics(slices(90, side=64), row) for row in ("aes_256_ctr", "fixed_xor"))
    assert aes["entropy_bits"] > 7.94
    assert aes["npcr_pct"] == fixed["npcr_pct"] == pytest.approx(100 / 64**2)


@pytest.mark.parametrize("row", ROWS)
def test_differential_figures_of_each_row(row: str) -> None:
    """Diffusion and synthetic nonces change the whole ciphertext; network and confusion cannot."""
    found = evaluation().statistics(slices(90, side=64), row)
    assert found["entropy_bits"] > 7.94
    assert found["adjacent_correlation"] < 0.05
    if row in {"diffusion", "synthetic_nonce"}:
        # A mean of three pairs, hence three times the pixels in Wu's test.
        low, high = uaci_critical(3 * 64 * 64, alpha=0.001)
        assert found["npcr_pct"] > npcr_critical(3 * 64 * 64, alpha=0.001)
        assert low < found["uaci_pct"] < high
    else:
        assert 0 < found["npcr_pct"] < 60


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (1, 1, 9), (3, 5, 7), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("level", [None, 0, 255])
def test_small_constant_and_coloured_images(shape: tuple[int, int, int], level: int | None) -> None:
    drawn = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = drawn if level is None else torch.full(shape, level, dtype=torch.uint8)
    found = figures([image], ByContent())
    assert "null" not in json.dumps(found, allow_nan=False)
    if level is not None:
        assert found["mean_image_psnr_db"] == PSNR_CAP_DB == 60.0


def test_exactness_goes_through_all_sizes_and_then_the_images() -> None:
    seen: list[tuple[int, ...]] = []
    measured = evaluation()
    plain = measured.cipher.decrypt

    def noting(ciphertext: Tensor, planes: Tensor) -> Tensor:
        seen.append(tuple(ciphertext.shape))
        return plain(ciphertext, planes) if len(seen) % 4 else ciphertext

    measured.cipher.decrypt = noting  # type: ignore[method-assign]
    found = measured.exactness(slices(70, 90), 4)
    assert seen == [(1, 1, *size) for size in SIZES[:4]]
    assert found["exact_fraction"] == 0.75
    assert 0.75 < found["exact_pixel_fraction"] < 0.9
    assert any(height % 2 for height, _ in SIZES)
    assert len(set(SIZES)) == 10


def test_resized() -> None:
    image = slices(90)[0]
    assert torch.equal(resized(image, (48, 48))[0], image)
    smaller = resized(image, (7, 11))
    assert (smaller.shape, smaller.dtype) == ((1, 1, 7, 11), torch.uint8)
    assert abs(float(smaller.float().mean()) - float(image.float().mean())) < 6
    constant = torch.full((3, 1, 1), 9, dtype=torch.uint8)
    assert torch.equal(resized(constant, (2, 5)), torch.full((1, 3, 2, 5), 9))


def test_mean_over_seeds() -> None:
    found = per_seed([{"a": 1.0, "b": {"c": 10.0}}, {"a": 3.0, "b": {"c": 10.0}}])
    assert found["a"] == 2.0
    assert found["b"] == {"c": 10.0}
    assert found["per_seed"]["a"] == {"mean": 2.0, "std": math.sqrt(2.0), "values": [1.0, 3.0]}
    assert found["per_seed"]["b"]["c"] == {"mean": 10.0, "std": 0.0, "values": [10.0, 10.0]}
