"""The weak schemes behave as they are described."""

from __future__ import annotations

import pytest
import torch

from encdl.audit.attacks.references import (
    BLOCKS,
    BlockScrambling,
    ByteShift,
    RepeatedKeyXor,
    block_side,
    from_blocks,
    to_blocks,
    turn_block,
)
from encdl.audit.attacks.reidentification import FixedEncoder
from tests.audit.attacks.support import scene


def some_images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(5), dtype=torch.uint8)


def test_the_repeated_key_is_one_tile_for_all_images() -> None:
    images = some_images(2, 1, 40, 35)
    target = RepeatedKeyXor()
    stream = target.encrypt(images) ^ images
    assert torch.equal(stream[0], stream[1])
    assert torch.equal(stream[:, :, 16:], stream[:, :, :-16])
    assert torch.equal(stream[..., 16:], stream[..., :-16])
    assert torch.equal(stream[0, 0, :16, :16], target.key)
    assert torch.equal(target.encrypt(target.encrypt(images), 9), images)
    assert not torch.equal(target.under(1).key, target.key)


def test_the_byte_shift_adds_one_byte_an_image() -> None:
    images = some_images(40, 1, 5, 5)
    shifts = (ByteShift().encrypt(images, 3) - images).flatten(1)
    assert torch.equal(shifts, shifts[:, :1].expand_as(shifts))
    assert len(shifts[:, 0].unique()) > 20
    assert torch.equal(ByteShift().encrypt(images[5:], 8), ByteShift().encrypt(images, 3)[5:])
    assert not torch.equal(ByteShift().under(1).encrypt(images, 3), ByteShift().encrypt(images, 3))


def test_blocks_there_and_back() -> None:
    images = some_images(2, 3, 24, 24)
    blocks = to_blocks(images, 6)
    assert blocks.shape == (2, 16, 3, 6, 6)
    assert torch.equal(blocks[1, 5], images[1, :, 6:12, 6:12])
    assert torch.equal(from_blocks(blocks, 24), images)


def test_eight_turns_of_a_square() -> None:
    square = torch.arange(9).view(3, 3)
    turned = [turn_block(square, turn) for turn in range(8)]
    assert len({tuple(each.flatten().tolist()) for each in turned}) == 8
    assert torch.equal(turned[0], square)


@pytest.mark.parametrize("mode", ["default", "fixed_key"])
def test_block_scrambling_moves_turns_and_negates_blocks(mode: str) -> None:
    images = scene(32).test[:3]
    found = BlockScrambling(mode).encrypt(images)
    block = block_side(images)
    for before, after in zip(to_blocks(images, block), to_blocks(found, block), strict=True):
        ways = [turn_block(each, turn) for each in (after, 255 - after) for turn in range(8)]
        there = torch.stack([(way[:, None] == before[None]).flatten(2).all(2) for way in ways]).any(0)
        assert there.any(0).all()
        assert there.any(1).all()
    again = BlockScrambling(mode).encrypt(images, 7)
    assert torch.equal(found, again) is (mode == "fixed_key")
    assert not torch.equal(BlockScrambling(mode).under(1).encrypt(images), found)


def test_block_scrambling_wants_squares_that_blocks_fill() -> None:
    for shape in ((1, 1, 12, 16), (1, 1, 14, 14)):
        with pytest.raises(ValueError, match=f"squares of a side that {BLOCKS} divides"):
            BlockScrambling().encrypt(some_images(*shape))


def test_the_fixed_encoder_codes_patches_alike_wherever_they_lie() -> None:
    images = scene(16).test[:2]
    target = FixedEncoder()
    first, second = (to_blocks(target.encrypt(images, number), 4).flatten(2) for number in (0, 9))
    assert not torch.equal(first, second)  # shuffled anew
    for one, other in zip(first, second, strict=True):
        assert sorted(one.tolist()) == sorted(other.tolist())
    assert not torch.equal(target.under(1).encrypt(images), target.encrypt(images))
