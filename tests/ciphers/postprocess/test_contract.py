"""What every post-processing promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encdl.ciphers.postprocess import (
    DEFAULT,
    NAMES,
    Both,
    Confusion,
    Diffusion,
    Identity,
    Interleave,
    PostProcess,
    create,
)
from encdl.keys import Key
from encdl.utils.errors import UsageError
from tests.ciphers.postprocess.golden import GOLDEN, digests
from tests.ciphers.postprocess.support import changed, image_keys, noise
from tests.mni import mni_slice

SHAPES = [(1, 1, 1), (1, 1, 2), (1, 1, 37), (1, 41, 1), (4, 1, 1), (1, 2, 2), (3, 5, 7), (2, 9, 4), (1, 16, 16)]
EVERY = pytest.mark.parametrize("process", [create(name) for name in NAMES], ids=NAMES)


def test_names() -> None:
    assert NAMES == ("interleave", "none", "confusion", "diffusion", "both")
    assert [type(create(name)) for name in NAMES] == [Interleave, Identity, Confusion, Diffusion, Both]
    assert [create(name).keyed for name in NAMES] == [False, False, True, True, True]
    assert DEFAULT == "interleave"
    with pytest.raises(UsageError, match="interleave, none, confusion, diffusion, both") as raised:
        create("blur")
    assert "\n" not in str(raised.value)


@EVERY
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_round_trip(process: PostProcess, shape: tuple[int, int, int]) -> None:
    keys = image_keys(3)
    for image in (noise(3, *shape), torch.zeros(3, *shape, dtype=torch.uint8)):
        before = image.clone()
        ciphertext = process.apply(image, keys)
        assert (ciphertext.dtype, ciphertext.shape) == (torch.uint8, image.shape)
        assert ciphertext.is_contiguous()
        assert process.undo(ciphertext, keys).is_contiguous()
        assert torch.equal(process.undo(ciphertext, keys), before)
        assert torch.equal(process.apply(process.undo(image, keys), keys), before)
        assert torch.equal(image, before)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 3), st.integers(1, 4), st.integers(1, 20), st.integers(1, 20))
def test_round_trip_of_any_shape(seed: int, batch: int, channels: int, height: int, width: int) -> None:
    image, keys = noise(batch, channels, height, width, seed=seed), image_keys(batch, seed)
    for name in NAMES:
        process = create(name)
        assert torch.equal(process.undo(process.apply(image, keys), keys), image)


@EVERY
def test_round_trip_with_derived_keys(process: PostProcess) -> None:
    image = mni_slice()
    keys = [Key.generate().image_keys(bytes(range(16)))]
    ciphertext = process.apply(image, keys)
    assert torch.equal(process.undo(ciphertext, keys), image)


@EVERY
@pytest.mark.usefixtures("way")
def test_an_image_does_not_depend_on_its_batch_or_memory_layout(process: PostProcess) -> None:
    image, keys = noise(4, 3, 12, 10), image_keys(4)
    together = process.apply(image, keys)
    alone = [process.apply(image[i : i + 1], keys[i : i + 1]) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))
    other_layout = image.to(memory_format=torch.channels_last)
    assert torch.equal(process.apply(other_layout, keys), together)
    assert torch.equal(process.undo(together.to(memory_format=torch.channels_last), keys), image)


@EVERY
def test_the_wrong_key_undoes_only_what_has_no_key(process: PostProcess) -> None:
    """As a reader without the key has the nonce, which is in the file."""
    image = mni_slice(height=64, width=64)
    (right,), (other,) = image_keys(1), image_keys(1, seed=1)
    ciphertext = process.apply(image, [right])
    wrong = process.undo(ciphertext, [changed(other, nonce=right.nonce)])
    assert torch.equal(wrong, image) == (not process.keyed)


@EVERY
@pytest.mark.usefixtures("way")
def test_undo_lost_covers_exactly_what_a_loss_can_change(process: PostProcess) -> None:
    image, keys = noise(2, 2, 14, 11), image_keys(2)
    ciphertext = process.apply(image, keys)
    lost = noise(2, 2, 14, 11, seed=1) < 8
    before = lost.clone()
    damaged = process.undo_lost(lost, keys)
    assert (damaged.dtype, damaged.shape) == (torch.bool, lost.shape)
    assert torch.equal(lost, before)
    changed = torch.zeros_like(lost)
    for seed in range(20):
        filled = torch.where(lost, noise(2, 2, 14, 11, seed=100 + seed), ciphertext)
        changed |= process.undo(filled, keys) != image
    assert torch.equal(damaged, changed)


@EVERY
def test_nothing_lost_is_nothing_damaged(process: PostProcess) -> None:
    keys = image_keys(2)
    for value in (True, False):
        lost = torch.full((2, 1, 6, 5), value)
        assert torch.equal(process.undo_lost(lost, keys), lost)


@EVERY
def test_wrong_input_is_refused(process: PostProcess) -> None:
    image, keys = noise(2, 1, 4, 4), image_keys(2)
    for method in (process.apply, process.undo):
        with pytest.raises(TypeError, match="uint8"):
            method(image.float(), keys)
        with pytest.raises(ValueError, match=r"\(B, C, H, W\)"):
            method(image[0], keys[:1])
        with pytest.raises(ValueError, match="keys of 2 images, got 1"):
            method(image, keys[:1])
    with pytest.raises(TypeError, match="bool"):
        process.undo_lost(image, keys)


@pytest.mark.usefixtures("way")
def test_golden() -> None:
    """A change here makes every file that was ever written with post-processing unreadable."""
    assert digests() == json.loads(Path(GOLDEN).read_text())


@EVERY
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_bytes(process: PostProcess) -> None:
    image, keys = noise(2, 3, 33, 20), image_keys(2)
    ciphertext = process.apply(image.cuda(), keys)
    assert ciphertext.is_cuda
    assert torch.equal(ciphertext.cpu(), process.apply(image, keys))
    assert torch.equal(process.undo(ciphertext, keys).cpu(), image)
    lost = noise(2, 3, 33, 20) < 10
    assert torch.equal(process.undo_lost(lost.cuda(), keys).cpu(), process.undo_lost(lost, keys))
