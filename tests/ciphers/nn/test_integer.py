from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from encdl.ciphers.nn.integer import (
    EXACT_LIMIT,
    INPUT_LIMIT,
    WEIGHT_LIMIT,
    IntegerConv2d,
    IntegerDilatedStage,
    shift_clamp,
    straight_through,
    triangle,
    wrap,
)

INTEGERS = st.integers(-(2**20), 2**20)


def integers(*shape: int, limit: int = 64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-limit, limit + 1, shape, generator=generator).float()


def is_integer(x: Tensor) -> bool:
    return torch.equal(x, x.round())


def test_limits_are_those_of_the_formats() -> None:
    """24 significant bits in float32, 11 in TF32: one more is rounded."""
    assert torch.tensor(float(EXACT_LIMIT)) + 1 == EXACT_LIMIT
    assert torch.tensor(float(EXACT_LIMIT - 1)) + 1 == EXACT_LIMIT
    assert torch.tensor(float(INPUT_LIMIT)).half().item() == INPUT_LIMIT  # float16 has TF32's 11 bits
    assert torch.tensor(float(INPUT_LIMIT + 1)).half().item() != INPUT_LIMIT + 1


def test_straight_through_takes_value_and_gradient_from_different_tensors() -> None:
    x = torch.tensor([0.2, 1.7, -3.4], requires_grad=True)
    y = straight_through(x.detach().round(), 2 * x)
    assert torch.equal(y, torch.tensor([0.0, 2.0, -3.0]))
    y.sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 2.0))


def test_straight_through_without_gradients_is_the_exact_tensor() -> None:
    exact = torch.tensor([1.0])
    assert straight_through(exact, torch.tensor([0.3])) is exact


@given(INTEGERS, st.integers(0, 8))
def test_shift_clamp_is_an_arithmetic_shift(value: int, shift: int) -> None:
    for x in (torch.tensor([float(value)]), torch.tensor([float(value)], requires_grad=True)):
        assert shift_clamp(x, shift, -64, 63).item() == max(-64, min(63, value >> shift))
        assert shift_clamp(x, shift, -EXACT_LIMIT, EXACT_LIMIT).item() == value >> shift


def test_shift_clamp_passes_gradients_inside_and_stops_them_outside() -> None:
    x = torch.tensor([-2000.0, -1024.0, -100.0, 0.0, 5.0, 1000.0, 2000.0], requires_grad=True)
    shift_clamp(x, 4, -64, 63).sum().backward()
    assert torch.equal(x.grad, torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]) / 16)


@given(INTEGERS)
def test_wrap_is_modulo_256(value: int) -> None:
    for x in (torch.tensor([float(value)]), torch.tensor([float(value)], requires_grad=True)):
        assert wrap(x).item() == value % 256


def test_wrap_has_the_gradient_of_the_identity() -> None:
    x = torch.tensor([-300.0, -1.0, 0.0, 255.0, 256.0, 1000.0], requires_grad=True)
    wrap(x).sum().backward()
    assert torch.equal(x.grad, torch.ones(6))


@pytest.mark.parametrize("offset", [0, 64, 128, 7])
def test_triangle_is_continuous_on_the_circle(offset: int) -> None:
    levels = torch.arange(256.0)
    wave = triangle(levels, offset)
    assert (wave.min(), wave.max()) == (-64, 64)
    assert is_integer(wave)
    assert torch.equal((wave - wave.roll(1)).abs(), torch.ones(256))  # from 255 to 0, too
    assert torch.equal(triangle(levels + 256, offset), wave)
    assert torch.equal(triangle(levels - 512, offset), wave)


def test_two_triangles_tell_every_level_apart() -> None:
    levels = torch.arange(256.0)
    pairs = torch.stack([triangle(levels, 0), triangle(levels, 64)], dim=1)
    assert len(torch.unique(pairs, dim=0)) == 256
    assert torch.equal(triangle(levels, 128), -triangle(levels, 0))


@pytest.mark.parametrize("dilation", [1, 2, 4, 8, 16])
def test_integer_convolution_gives_the_integers_of_an_integer_computation(dilation: int) -> None:
    layer = IntegerConv2d(5, 3, dilation)
    x = integers(2, 5, 11, 7)
    y = layer(x)
    assert y.shape == (2, 3, 11, 7)
    assert is_integer(y)
    weight, bias = (t.detach().long() for t in (layer.integer_weight(), layer.integer_bias()))
    padded = torch.nn.functional.pad(x.long(), (dilation,) * 4)
    expected = bias.view(1, -1, 1, 1) + sum(
        torch.einsum(
            "nihw,oi->nohw",
            padded[:, :, dilation * r : dilation * r + 11, dilation * c : dilation * c + 7],
            weight[:, :, r, c],
        )
        for r in range(3)
        for c in range(3)
    )
    assert torch.equal(y.long(), expected)


def test_weights_act_rounded_and_clamped_and_learn_as_if_they_were_not() -> None:
    layer = IntegerConv2d(1, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([-99.0, -7.4, -0.6, -0.4, 0.0, 0.4, 2.6, 7.4, 1e6]).view(1, 1, 3, 3))
        layer.bias.fill_(-500.2)
    assert layer.integer_weight().flatten().tolist() == [-7, -7, -1, 0, 0, 0, 3, 7, 7]
    assert layer.integer_bias().tolist() == [-127]
    layer(torch.ones(1, 1, 3, 3)).sum().backward()
    assert bool((layer.weight.grad > 0).all())
    assert layer.bias.grad.item() == 9


def test_gradients_reach_the_input() -> None:
    x = integers(1, 2, 6, 6).requires_grad_()
    IntegerDilatedStage(2, 3, (1, 2), shift=3)(x).sum().backward()
    assert bool(x.grad.isfinite().all())
    assert bool(x.grad.any())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 2047), st.integers(1, 6), st.booleans())
def test_worst_sum_is_reached_and_never_exceeded(seed: int, limit: int, channels: int, extreme: bool) -> None:
    torch.manual_seed(seed)
    layer = IntegerConv2d(channels, 4)
    with torch.no_grad():
        layer.weight.mul_(100 if extreme else 1)
        layer.bias.mul_(100 if extreme else 1)
    bound = layer.worst_sum(limit)
    weight, bias = layer.integer_weight().detach(), layer.integer_bias().detach()
    # The middle output of a 3x3 image sees all of it: the signs of a filter are its worst input.
    signs = torch.where(weight * bias.sign().view(-1, 1, 1, 1) >= 0, 1.0, -1.0)
    signs = torch.where(bias.view(-1, 1, 1, 1) == 0, weight.sign(), signs)
    reached = layer(signs * limit)[:, :, 1, 1].abs().max().item()
    assert reached == bound
    assert layer(integers(64, channels, 5, 5, limit=limit, seed=seed)).abs().max().item() <= bound
    assert bound <= channels * 9 * WEIGHT_LIMIT * limit + 127


def test_worst_sum_bounds_the_positive_part_as_well() -> None:
    """Every partial sum, in any order, is bounded, not only the last one: 7 - 7 adds nothing, and passes 7."""
    layer = IntegerConv2d(1, 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0, 0, :2] = torch.tensor([7.0, -7.0])
        layer.bias.fill_(3)
    assert layer.worst_sum(10) == 143


def test_a_stage_gives_seven_bits_whatever_comes_in() -> None:
    stage = IntegerDilatedStage(4, 5, (1, 2, 8), shift=2)
    for limit in (1, 64, 2047):
        y = stage(integers(2, 4, 9, 10, limit=limit))
        assert y.shape == (2, 15, 9, 10)
        assert is_integer(y)
        assert y.min() >= -64
        assert y.max() <= 63


def test_a_convolution_is_the_same_in_any_batch_and_layout() -> None:
    layer = IntegerConv2d(16, 8, 4)
    x = integers(5, 16, 12, 13, limit=2047)
    together = layer(x)
    assert torch.equal(torch.cat([layer(one[None]) for one in x]), together)
    assert torch.equal(layer(x.to(memory_format=torch.channels_last)), together)
    assert torch.equal(layer(x.double().float()), together)
