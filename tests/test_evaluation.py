"""The figures of a cipher: which there are, that they repeat, and that the shipped weights keep their promises."""

from __future__ import annotations

import json
import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from encdl import weights
from encdl.damage import DAMAGES
from encdl.evaluation import ROWS, SIZES, Evaluation, per_seed, resized
from encdl.keys.planes import PlaneSpec
from encdl.metrics.differential import npcr_critical, uaci_critical
from encdl.metrics.quality import PSNR_CAP_DB
from tests.mni import mni_slice
from tests.tasks.support import tiny_cipher

SCALARS = {"exact_fraction", "wrong_key_psnr_db", "mean_image_psnr_db", "content_activity"}
STATISTICS = {"entropy_bits", "adjacent_correlation", "npcr_pct", "uaci_pct"}


def evaluation(name: str = "agile", seed: int = 0) -> Evaluation:
    return Evaluation(tiny_cipher(name).eval(), PlaneSpec(), "cpu", seed)


def silent(step: str) -> None:
    assert step


def figures(images: list[Tensor], name: str = "agile", seed: int = 0) -> dict[str, Any]:
    return evaluation(name, seed).figures(images, 2, silent)


def slices(*indices: int, side: int = 48) -> list[Tensor]:
    return [mni_slice(index, side, side)[0] for index in indices]


def test_the_names_of_the_figures() -> None:
    found = figures(slices(70, 90))
    assert SCALARS | STATISTICS | {"restored_psnr_db"} <= set(found)
    assert list(DAMAGES) == ["salt_pepper_1pct", "salt_pepper_5pct", "gaussian_2", "gaussian_8", "crop_25pct"]
    assert set(found["restored_psnr_db"]) == set(DAMAGES)
    for name in STATISTICS:
        assert list(found[name]) == ["network", "confusion", "diffusion", "synthetic_nonce"]
    assert found["exact_fraction"] == found["exact_pixel_fraction"] == 1.0
    assert set(found["references"]) == {"aes_256_ctr", "fixed_xor"}
    assert all(set(row) == STATISTICS for row in found["references"].values())
    assert found["unrestored_psnr_db"].keys() == found["restored_psnr_db"].keys()


def test_the_same_seed_gives_the_same_figures_and_another_one_others() -> None:
    first, again, other = (figures(slices(70, 90), seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first["wrong_key_psnr_db"] != other["wrong_key_psnr_db"]
    assert first["restored_psnr_db"] != other["restored_psnr_db"]
    assert first["mean_image_psnr_db"] == other["mean_image_psnr_db"]


def test_the_global_generator_neither_decides_nor_is_moved() -> None:
    measured = evaluation()
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = measured.figures(slices(90), 2, silent)
    assert torch.equal(torch.rand(2), expected)
    assert measured.figures(slices(90), 2, silent) == first


def test_an_inexact_cipher_is_told() -> None:
    found = figures(slices(90), "thesis")
    assert found["exact_fraction"] == 0.0
    assert 0.0 <= found["exact_pixel_fraction"] < 0.5


def test_a_pure_keystream_has_no_content_activity() -> None:
    measured = evaluation()
    for parameter in measured.cipher.coupling.parameters():  # type: ignore[union-attr]
        parameter.data.zero_()
    assert measured.activity(slices(70, 90)) == pytest.approx(
        dict.fromkeys(("content_activity", "content_activity_neighbour", "content_activity_unrelated"), 0.0),
        abs=1e-12,
    )


def test_content_activity_by_what_is_compared() -> None:
    """A neighbour shares much of the mask, an unrelated picture little; one picture alone is turned."""
    measured = Evaluation(weights.load("default").cipher, PlaneSpec(), "cpu", 0)
    shipped = measured.activity([mni_slice(index, 96, 96)[0] for index in (80, 81, 100)])
    assert shipped["content_activity_unrelated"] > 0.5
    alone = measured.activity(slices(90))
    assert len(set(alone.values())) == 1
    two = measured.activity([mni_slice(90, 96, 96)[0], mni_slice(90, 96, 96)[0]])
    assert two["content_activity"] == 0.0


def test_the_references_beside_our_rows() -> None:
    aes, fixed = (evaluation().statistics(slices(90, side=64), row) for row in ("aes_256_ctr", "fixed_xor"))
    assert aes["entropy_bits"] > 7.94
    assert aes["npcr_pct"] == fixed["npcr_pct"] == pytest.approx(100 / 64**2)


@pytest.mark.parametrize("row", ROWS)
def test_differential_figures_of_each_row(row: str) -> None:
    """Diffusion and synthetic nonces change the whole ciphertext; network and confusion cannot."""
    image = slices(90, side=64)
    found = evaluation().statistics(image, row)
    assert found["entropy_bits"] > 7.94
    assert found["adjacent_correlation"] < 0.05
    if row in {"diffusion", "synthetic_nonce"}:
        # A mean of three pairs, hence three times the pixels in Wu's test.
        low, high = uaci_critical(3 * 64 * 64, alpha=0.001)
        assert found["npcr_pct"] > npcr_critical(3 * 64 * 64, alpha=0.001)
        assert low < found["uaci_pct"] < high
    else:
        assert 0 < found["npcr_pct"] < 60


@pytest.mark.parametrize("name", ["agile", "thesis"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (1, 1, 9), (3, 5, 7), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("level", [None, 0, 255])
def test_small_constant_and_coloured_pictures(
    name: str, shape: tuple[int, int, int], level: int | None
) -> None:
    drawn = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = drawn if level is None else torch.full(shape, level, dtype=torch.uint8)
    measured = evaluation(name)
    found = measured.quality([image]) | {row: measured.statistics([image], row) for row in ROWS}
    found |= measured.exactness([image], 1)
    text = json.dumps(found, allow_nan=False)
    assert "null" not in text
    if level is not None:
        assert found["mean_image_psnr_db"] == PSNR_CAP_DB


def test_pictures_of_several_sizes() -> None:
    images = [torch.zeros(1, 1, 1, dtype=torch.uint8), *slices(90, side=20), *slices(80, side=33)]
    json.dumps(figures(images), allow_nan=False)


def test_exactness_goes_through_all_sizes_and_then_the_pictures() -> None:
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
    assert torch.equal(
        resized(torch.full((3, 1, 1), 9, dtype=torch.uint8), (2, 5)), torch.full((1, 3, 2, 5), 9)
    )


def test_mean_over_seeds() -> None:
    found = per_seed([{"a": 1.0, "b": {"c": 10.0}}, {"a": 3.0, "b": {"c": 10.0}}])
    assert found["a"] == 2.0
    assert found["b"] == {"c": 10.0}
    assert found["per_seed"]["a"] == {"mean": 2.0, "std": math.sqrt(2.0), "values": [1.0, 3.0]}
    assert found["per_seed"]["b"]["c"] == {"mean": 10.0, "std": 0.0, "values": [10.0, 10.0]}


@pytest.mark.parametrize(
    "images", [slices(70, 80, 90, 100), slices(90), [torch.ones(3, 1, 1, dtype=torch.uint8)]]
)
def test_panel(images: list[Tensor]) -> None:
    png = evaluation().panel(images)
    drawn = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert drawn is not None
    assert drawn.shape[:2] == (225 * min(3, len(images)) + 50, 7 * 200)
    assert evaluation().panel(images) == png


@pytest.fixture(scope="module")
def shipped() -> dict[str, Any]:
    """The default weights on two test slices."""
    loaded = weights.load("default")
    images = [mni_slice(index)[0] for index in (109, 116)]
    measured = Evaluation(loaded.cipher, PlaneSpec(), "cpu", 0)
    found: dict[str, Any] = (
        measured.exactness(images, 8) | measured.quality(images) | measured.activity(images)
    )
    return found | {row: measured.statistics(images[:1], row) for row in ROWS}


def test_the_shipped_weights_keep_their_promises(shipped: dict[str, Any]) -> None:
    assert shipped["exact_fraction"] == 1.0
    assert shipped["restored_psnr_db"]["salt_pepper_1pct"] >= 30
    assert shipped["restored_psnr_db"]["salt_pepper_5pct"] >= 26
    assert shipped["restored_psnr_db"]["gaussian_2"] >= 30
    assert shipped["wrong_key_psnr_db"] <= shipped["mean_image_psnr_db"]
    assert shipped["content_activity"] >= 0.5


def test_the_restorer_of_the_shipped_weights_restores(shipped: dict[str, Any]) -> None:
    for name in DAMAGES:
        assert shipped["restored_psnr_db"][name] > shipped["unrestored_psnr_db"][name] + 5, name


@pytest.mark.parametrize("row", ["diffusion", "synthetic_nonce"])
def test_the_shipped_weights_pass_the_differential_tests(shipped: dict[str, Any], row: str) -> None:
    low, high = uaci_critical(3 * 197 * 233, alpha=0.01)
    assert shipped[row]["npcr_pct"] > npcr_critical(3 * 197 * 233, alpha=0.01)
    assert low < shipped[row]["uaci_pct"] < high
    assert shipped[row]["entropy_bits"] > 7.995
    assert shipped[row]["adjacent_correlation"] < 0.0153
