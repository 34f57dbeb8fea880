from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from encdl.ciphers.postprocess import Interleave, keyed_permutation
from encdl.ciphers.postprocess.interleave import deinterleave, interleave
from encdl.utils.errors import UsageError
from tests.ciphers.postprocess.support import changed, image_keys, noise

Mask = NDArray[np.bool_]

SIDES = [*range(1, 12), 16, 17, 33]
WITHIN_ONE = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))
BESIDE = tuple((dy, dx) for dy, dx in WITHIN_ONE if 0 in {dy, dx})


def nonce(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()[:16]


def order_of(channels: int, height: int, width: int, own: bytes) -> list[int]:
    """The text of encdl/ciphers/postprocess/interleave.py, word by word: where each byte of the file comes from."""
    places = itertools.product(range(channels), range(height), range(width))
    order = [(c * height + y) * width + x for *_, y, c, x in sorted(((y + 2 * x) % 4, y, c, x) for c, y, x in places)]
    drawn = hashlib.sha256(b"encdl interleave" + own).digest()[:8]
    start = int.from_bytes(drawn, "little") % len(order)
    return order[start:] + order[:start]


def numbered(count: int, channels: int, height: int, width: int) -> list[Tensor]:
    """Images whose pixels are their own places, the low and the high bytes."""
    places = torch.arange(channels * height * width).view(1, channels, height, width)
    return [(places >> shift & 255).to(torch.uint8).expand(count, -1, -1, -1) for shift in (0, 8)]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_every_byte_of_any_shape_goes_where_the_text_says(channels: int) -> None:
    for height, width in itertools.product(SIDES, SIDES):
        nonces = [nonce(number) for number in range(3)]
        low, high = numbered(3, channels, height, width)
        moved = [interleave(part, nonces) for part in (low, high)]
        found = moved[0].int() + 256 * moved[1].int()
        for own, one in zip(nonces, found.flatten(1).tolist(), strict=True):
            assert one == order_of(channels, height, width, own), (height, width)
        assert torch.equal(deinterleave(moved[0], nonces), low)
        assert torch.equal(deinterleave(moved[1], nonces), high)


@pytest.mark.usefixtures("way")
def test_fixed_bytes() -> None:
    """A change here makes every file unreadable that was ever written with the default."""
    image = torch.arange(24, dtype=torch.uint8).view(1, 1, 4, 6)
    file = interleave(image, [bytes(range(16))])
    assert file.flatten().tolist() == [
        5, 12, 14, 16, 7, 9, 11, 18, 20, 22, 0, 2, 4, 13, 15, 17, 6, 8, 10, 19, 21, 23, 1, 3,
    ]  # fmt: skip


@pytest.mark.usefixtures("way")
def test_losses_go_with_their_bytes() -> None:
    image, keys = noise(3, 2, 13, 10), image_keys(3)
    lost = noise(3, 2, 13, 10, seed=1) < 60
    file = interleave(image, [key.nonce for key in keys])
    filled = Interleave().undo(torch.where(lost, ~file, file), keys)
    assert torch.equal(filled != image, Interleave().undo_lost(lost, keys))


def test_it_takes_the_nonce_and_nothing_secret() -> None:
    image, keys = noise(1, 1, 20, 20), image_keys(1)
    secrets = {name: bytes(32) for name in ("planes", "permutation", "diffusion", "authentication", "wrap", "reading")}
    public = [changed(keys[0], **secrets)]
    assert torch.equal(Interleave().apply(image, keys), Interleave().apply(image, public))
    assert torch.equal(deinterleave(Interleave().apply(image, keys), [keys[0].nonce]), image)


def test_nonces_draw_every_start_alike() -> None:
    image = torch.zeros(4000, 1, 5, 5, dtype=torch.uint8)
    image[..., 0, 0] = 1
    found = interleave(image, [nonce(number) for number in range(len(image))]).flatten(1)
    counts = found.sum(0, dtype=torch.int64)
    assert counts.sum() == len(image)
    assert counts.sub(160).abs().max() < 6 * 160**0.5


def test_wrong_input_is_refused() -> None:
    image = noise(2, 1, 4, 4)
    for function in (interleave, deinterleave):
        with pytest.raises(TypeError, match="bytes or bool"):
            function(image.float(), [nonce(0)] * 2)
        with pytest.raises(ValueError, match=r"\(B, C, H, W\)"):
            function(image[0], [nonce(0)])
        with pytest.raises(ValueError, match="nonces of 2 images, got 1"):
            function(image, [nonce(0)])
        with pytest.raises(UsageError, match="16 bytes"):
            function(image, [nonce(0), b"short"])
        assert function(image[:0], []).shape == (0, 1, 4, 4)


def lost_run(height: int, width: int, start: int, length: int, channels: int = 1) -> Mask:
    """(C, H, W): the pixels of a run of the order that begins anywhere; going around stands for the nonce."""
    order = np.array(order_of(channels, height, width, bytes(16)))
    lost = np.zeros(channels * height * width, bool)
    lost[np.roll(order, -start)[:length]] = True
    return lost.reshape(channels, height, width)


def whole(lost: Mask, neighbours: tuple[tuple[int, int], ...]) -> float:
    """Of the lost pixels, the share of which no neighbour is lost."""
    _, height, width = lost.shape
    around = np.pad(lost, ((0, 0), (1, 1), (1, 1)))
    hurt = np.zeros_like(lost)
    for dy, dx in neighbours:
        hurt |= around[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
    return 1 - float(hurt[lost].mean())


@pytest.mark.parametrize("channels", [1, 3])
def test_no_quarter_of_any_size_takes_two_neighbours(channels: int) -> None:
    for height, width in itertools.product(range(1, 8), range(1, 8)):
        size = channels * height * width
        length = size // 4 - channels // 2
        for start in range(size if length > 0 else 0):
            assert whole(lost_run(height, width, start, length, channels), BESIDE) == 1


@pytest.mark.parametrize(("height", "width"), [(28, 28), (128, 128), (197, 233)])
def test_what_runs_become(height: int, width: int) -> None:
    """What docs/ciphers.md says, beside a permutation that scatters at random."""
    size = height * width
    for length in (size // 4, size // 16, min(4096, size // 4)):
        for start in (0, 1, size // 3 + 1, size - size // 7):
            lost = lost_run(height, width, start, length)
            assert lost.sum() == length
            assert whole(lost, BESIDE) == 1
            assert whole(lost, WITHIN_ONE) > (0.84 if height == 28 else 0.96)
    scattered = np.zeros(size, bool)
    scattered[keyed_permutation([bytes(32)], size)[0, : size // 4].numpy()] = True
    assert whole(scattered.reshape(1, height, width), BESIDE) == pytest.approx(0.75**4, abs=0.07)
