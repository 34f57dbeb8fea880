from __future__ import annotations

import pytest
import torch

from encdl.ciphers.postprocess import Both, Diffusion, PostProcess
from encdl.ciphers.postprocess.diffusion import REVISION
from encdl.metrics.differential import npcr_critical, npcr_pct, uaci_critical, uaci_pct
from encdl.metrics.statistics import CHI_SQUARE_CRITICAL, chi_square, mean_adjacent_correlation
from encdl.utils import compiled
from tests.ciphers.postprocess.support import image_keys, noise
from tests.mni import mni_slice

IDEAL_NPCR, IDEAL_UACI = 100 * 255 / 256, 100 * 257 / 768


def change_one(image: torch.Tensor, place: int, step: int) -> torch.Tensor:
    changed = image.clone()
    changed.view(len(image), -1)[:, place] += step
    return changed


def differential(process: PostProcess, image: torch.Tensor, place: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    keys = image_keys(len(image), seed=place + 1000 * step)
    first, second = process.apply(image, keys), process.apply(change_one(image, place, step), keys)
    return npcr_pct(first, second), uaci_pct(first, second)


@pytest.mark.parametrize("side", [64, 256])
@pytest.mark.parametrize("step", [1, 128])
@pytest.mark.parametrize("process", [Diffusion(), Both()], ids=["diffusion", "both"])
def test_wu_critical_values_on_real_slices(process: PostProcess, side: int, step: int) -> None:
    """Trials fail as often as the level says, and their mean is the ideal one: first, middle and last pixel."""
    pixels, trials = side * side, 48 if side == 64 else 12
    image = mni_slice(height=side, width=side).repeat(trials, 1, 1, 1)
    low, high = uaci_critical(pixels, 0.05)
    passed = []
    for place in (0, pixels // 2 + side // 2, pixels - 1):
        npcr, uaci = differential(process, image, place, step)
        passed += [*(npcr >= npcr_critical(pixels, 0.05)).tolist()]
        passed += [*((uaci >= low) & (uaci <= high)).tolist()]
        # One in a million for each mean; the range around the ideal narrows with the number of trials.
        assert npcr.mean().item() > npcr_critical(pixels * trials, 1e-6)
        widest = uaci_critical(pixels * trials, 1e-6)
        assert widest[0] < uaci.mean().item() < widest[1]
    assert sum(passed) / len(passed) > 0.85


@pytest.mark.parametrize("shape", [(1, 1, 400), (1, 400, 1), (1, 2, 150), (3, 12, 12), (1, 20, 20)], ids=str)
def test_any_pixel_of_any_channel_changes_all_pixels(shape: tuple[int, int, int]) -> None:
    pixels = shape[0] * shape[1] * shape[2]
    image = noise(64, *shape)
    every = [differential(Diffusion(), image, place, 128) for place in range(0, pixels, 13)]
    npcr, uaci = (torch.cat(figures) for figures in zip(*every, strict=True))
    count = pixels * len(npcr)
    assert npcr.min().item() > 90.0
    assert npcr.mean().item() == pytest.approx(IDEAL_NPCR, abs=5 * 100 / 16 / count**0.5)
    assert uaci.mean().item() == pytest.approx(IDEAL_UACI, abs=5 * 24 / count**0.5)


def test_pixels_change_independently_of_each_other() -> None:
    """No row or column stays as it was more often than others do: changed pixels by place, over many keys."""
    trials, side = 1500, 12
    image = torch.zeros(trials, 1, side, side, dtype=torch.uint8)
    keys = image_keys(trials)
    for place in (0, side * side - 1, side * side - side):
        changed = Diffusion().apply(image, keys) != Diffusion().apply(change_one(image, place, 128), keys)
        share = changed.double().mean(0)
        assert share.min().item() > 0.98
        assert changed.double().mean().item() == pytest.approx(255 / 256, abs=0.001)


def test_smallest_images() -> None:
    for shape in ((1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1)):
        npcr, _ = differential(Diffusion(), noise(500, *shape), 0, 128)
        assert npcr.mean().item() > 98.0


def test_a_constant_image_turns_into_noise() -> None:
    for value in (0, 128, 255):
        image = torch.full((4, 1, 128, 128), value, dtype=torch.uint8)
        ciphertext = Diffusion().apply(image, image_keys(4, seed=value))
        assert chi_square(ciphertext).mean().item() < CHI_SQUARE_CRITICAL
        assert mean_adjacent_correlation(ciphertext).max().item() < 0.03


def test_not_linear_in_the_difference() -> None:
    """Adding 128 to one pixel gives an unrelated difference for every image, unlike in a linear scheme."""
    keys = image_keys(1) * 2
    image = noise(2, 1, 32, 32)
    difference = Diffusion().apply(change_one(image, 5, 128), keys) - Diffusion().apply(image, keys)
    assert npcr_pct(difference[:1], difference[1:]).item() > 98.0


@pytest.mark.parametrize("shape", [(1, 21, 31), (1, 31, 21), (3, 9, 15)], ids=str)
def test_damage_reaches_only_the_neighbours(shape: tuple[int, int, int]) -> None:
    image, keys = noise(8, *shape), image_keys(8)
    ciphertext = Diffusion().apply(image, keys)
    rows, columns = shape[0] * shape[1], shape[2]
    up, along = (1, 2) if columns >= rows else (2, 1)
    row, column = rows // 2, columns // 2
    damaged = change_one(ciphertext, row * columns + column, 77)
    wrong = (Diffusion().undo(damaged, keys) != image).view(8, rows, columns)
    assert wrong.sum((1, 2)).min().item() >= 8
    assert wrong.sum((1, 2)).max().item() <= 15
    wrong[:, row - up : row + up + 1, column - along : column + along + 1] = False
    assert not bool(wrong.any())


def test_a_lost_block_stays_a_block() -> None:
    lost = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    lost[..., :32, :32] = True
    assert Diffusion().undo_lost(lost, image_keys(1)).sum().item() == 33 * 34


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 3000), (1, 3000, 1), (1, 7, 9), (1, 8, 8), (1, 9, 7), (2, 17, 33), (5, 8, 40), (3, 257, 255)],
    ids=str,
)
def test_compiled_code_does_what_pytorch_does(shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines by eights and left over, one line, the longer side either way, several channels and images."""
    if compiled.library("encdl_diffusion_revision", REVISION) is None:
        pytest.skip("no compiled code here: no C compiler")
    image, keys = noise(3, *shape), image_keys(3)
    there, back = Diffusion().apply(image, keys), Diffusion().undo(image, keys)
    monkeypatch.setattr(compiled, "library", lambda *_: None)
    assert torch.equal(there, Diffusion().apply(image, keys))
    assert torch.equal(back, Diffusion().undo(image, keys))
