from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from encdl.ciphers.reading_layer import add_mask, reading_mask, remove_mask
from encdl.keys import Key
from encdl.utils.errors import UsageError

KEY = Key(bytes(range(32)))
KEYS = [KEY.image_keys(bytes([number] * 16)) for number in range(3)]


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 4, 4), (2, 1, 3, 3)])
@pytest.mark.parametrize("bits", [16, 32])
def test_a_mask_comes_off_again_in_arrays_and_tensors(bits: int, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    mask = reading_mask(KEYS, shape, bits)
    masked = add_mask(image, mask)
    assert masked.dtype == mask.dtype == np.dtype(f"u{bits // 8}")
    assert np.array_equal(masked.astype(object), (image.astype(object) + mask.astype(object)) % 2**bits)
    assert np.array_equal(remove_mask(masked, mask), image)
    words = torch.from_numpy(mask)
    assert np.array_equal(add_mask(torch.from_numpy(image), words).numpy(), masked)
    assert np.array_equal(remove_mask(torch.from_numpy(masked), words).numpy(), image)


def test_each_image_shape_word_and_layer_has_a_mask_of_its_own() -> None:
    alone = [
        reading_mask(KEYS, (1, 8, 8)),
        reading_mask(KEYS, (8, 8)),
        reading_mask(KEYS, (1, 4, 16)),
        reading_mask(KEYS, (1, 8, 8), layer=1),
        reading_mask(KEYS, (1, 8, 16), 16),
    ]
    starts = {row.tobytes()[:64] for masks in alone for row in masks}
    assert len(starts) == 3 * len(alone)
    assert np.array_equal(reading_mask(KEYS[1:2], (1, 8, 8))[0], alone[0][1])


def test_masks_are_uniform_and_stay_as_they_are() -> None:
    mask = reading_mask(KEYS[:1], (1, 256, 256), 16)
    counts = np.bincount(mask.view(np.uint8).ravel(), minlength=256)
    assert (((counts - counts.mean()) ** 2) / counts.mean()).sum() < 350  # 255 degrees of freedom
    digest = hashlib.sha256(reading_mask(KEYS[:1], (1, 3, 5)).astype("<u4").tobytes()).hexdigest()
    assert digest[:16] == "fe4ac971a3ddff5e"


@pytest.mark.parametrize(("shape", "bits", "layer"), [((4, 4), 8, 0), ((), 32, 0), ((0, 4), 32, 0), ((4,), 32, 256)])
def test_what_is_no_layer(shape: tuple[int, ...], bits: int, layer: int) -> None:
    with pytest.raises(UsageError):
        reading_mask(KEYS, shape, bits, layer)
    with pytest.raises(UsageError, match="does not fit"):
        add_mask(np.zeros((1, 4), np.uint8), reading_mask(KEYS[:1], (5,)))
