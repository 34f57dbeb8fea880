"""Training keys: a function of seed, rank, purpose and step, and never the same for two of them."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encdl.ciphers.nn.plane_tensors import unpack
from encdl.keys.planes import PlaneSpec
from encdl.training.tasks.key_planes import fresh_generator, fresh_planes

DRAW: dict[str, Any] = {"seed": 0, "rank": 0, "purpose": "train", "step": 0}
CHANGES: list[dict[str, Any]] = [
    {},
    {"seed": 1},
    {"rank": 1},
    {"purpose": "val"},
    {"purpose": "val wrong key"},
    {"step": 1},
    {"seed": 1, "rank": 1},
    {"rank": 1, "step": 1},
    {"seed": 1, "step": 1},
]
SHAPE = torch.Size((2, 3, 9, 11))


def planes(spec: PlaneSpec = PlaneSpec(), shape: torch.Size = SHAPE, **change: Any) -> torch.Tensor:  # noqa: B008
    return fresh_planes(spec, shape, **{**DRAW, **change})


def bits(**change: Any) -> torch.Tensor:
    return unpack(planes(**change), 8)


def numbers(**change: Any) -> torch.Tensor:
    return torch.randint(0, 2**60, (4,), generator=fresh_generator(**{**DRAW, **change}))


def test_shape_and_values() -> None:
    drawn = planes(PlaneSpec(count=5))
    assert drawn.shape == SHAPE
    assert drawn.dtype == torch.uint8
    assert drawn.device.type == "cpu"
    assert int(drawn.max()) < 2**5
    bits = unpack(drawn, 5)
    assert bits.shape == (2, 3, 5, 9, 11)
    assert 0.45 < float(bits.float().mean()) < 0.55


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_the_same_draw_twice(change: dict[str, Any]) -> None:
    assert torch.equal(planes(**change), planes(**change))
    assert torch.equal(numbers(**change), numbers(**change))


@pytest.mark.parametrize(("one", "other"), list(combinations(CHANGES, 2)), ids=str)
def test_no_two_draws_share_a_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    agreement = (bits(**one) == bits(**other)).float().mean()
    assert 0.45 < float(agreement) < 0.55  # unrelated, not merely different
    assert not torch.equal(numbers(**one), numbers(**other))


def test_images_and_channels_of_a_batch_share_no_key() -> None:
    every = bits().flatten(0, 1)
    for one, other in combinations(every, 2):
        assert 0.4 < float((one == other).float().mean()) < 0.6


def test_a_larger_batch_begins_with_the_smaller_one() -> None:
    assert torch.equal(planes(shape=torch.Size((5, 3, 9, 11)))[:2], planes())


@settings(max_examples=50, deadline=None)
@given(st.tuples(st.integers(0, 12), st.integers(0, 12), st.sampled_from(["val", "val 1"]), st.integers(0, 12)))
def test_neighbouring_numbers_do_not_run_together(draw: tuple[int, int, str, int]) -> None:
    """Seed 1 and rank 11 are not seed 11 and rank 1, nor step 1."""
    seed, rank, purpose, step = draw
    mine = numbers(seed=seed, rank=rank, purpose=purpose, step=step)
    others = {(rank, seed, purpose, step), (seed, step, purpose, rank), (step, rank, purpose, seed)} - {draw}
    for seed, rank, purpose, step in others:
        assert not torch.equal(mine, numbers(seed=seed, rank=rank, purpose=purpose, step=step))


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    planes()
    numbers()
    assert torch.equal(torch.rand(3), expected)
