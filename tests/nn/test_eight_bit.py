"""Convolutions on bytes give the sums of the float ones, whatever the weights were a moment ago."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from encdl.nn import eight_bit
from encdl.nn.integer import IntegerConv2d, IntegerDilatedStage

HERE = eight_bit.available()
pytestmark = pytest.mark.skipif(not HERE, reason="this processor has no fast 8-bit convolution")


@pytest.fixture
def untried() -> Iterator[None]:
    """Let `available` try anew, and forget what it found."""
    eight_bit._tried.cache_clear()
    yield
    eight_bit._tried.cache_clear()


def made(*shape: int, seed: int = 0, high: int = 128) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, shape, generator=draw, dtype=torch.uint8)


def layer(inputs: int, outputs: int, dilation: int = 1, seed: int = 0) -> IntegerConv2d:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return IntegerConv2d(inputs, outputs, dilation).requires_grad_(False)


@settings(max_examples=60, deadline=None)
@given(
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 20),
    dilation=st.integers(1, 16),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    shift=st.integers(0, 6),
    zero=st.sampled_from([0, 1, 64]),
    seed=st.integers(0, 2**32),
)
def test_sums_and_shifted_sums(
    inputs: int, outputs: int, dilation: int, height: int, width: int, shift: int, zero: int, seed: int
) -> None:
    one, x = layer(inputs, outputs, dilation, seed), made(2, inputs, height, width, seed=seed)
    wanted = one(x.float() - zero)
    assert torch.equal(eight_bit.convolve(one, x, zero), wanted)
    floors = (wanted / 2**shift).floor().add(64).clamp(0, 255)
    assert torch.equal(eight_bit.convolve_shifted(one, x, zero, shift).float(), floors)


def test_the_largest_sums() -> None:
    one = layer(1024, 2)
    one.weight.fill_(7.0)
    one.weight[1] = -7.0
    one.bias.fill_(127.0)
    x = torch.full((1, 1024, 5, 5), 127, dtype=torch.uint8)
    assert torch.equal(eight_bit.convolve(one, x, 0), one(x.float()))


def test_a_stage() -> None:
    stage = IntegerDilatedStage(5, 3, (1, 2, 8), shift=2).requires_grad_(False)
    x = made(2, 5, 13, 9)
    assert torch.equal(stage.on_bytes(x).float() - 64, stage(x.float() - 64))
    assert torch.equal(stage.on_bytes(x, zero=3).float() - 64, stage(x.float() - 3))


def test_changed_weights_are_packed_again() -> None:
    one, x = layer(3, 2), made(1, 3, 6, 6)
    before = eight_bit.convolve(one, x)
    one.weight.neg_()
    assert not torch.equal(eight_bit.convolve(one, x), before)
    assert torch.equal(eight_bit.convolve(one, x), one(x.float() - 64))
    other = layer(3, 2, seed=1)
    one.load_state_dict(other.state_dict())
    assert torch.equal(eight_bit.convolve(one, x), other(x.float() - 64))
    one.weight.data = layer(3, 2, seed=2).weight.data
    assert torch.equal(eight_bit.convolve(one, x), one(x.float() - 64))
    one.bias.add_(1)
    assert torch.equal(eight_bit.convolve(one, x), one(x.float() - 64))
    assert torch.equal(eight_bit.convolve(one, x, zero=1), one(x.float() - 1))


def test_weights_of_inference_mode() -> None:
    with torch.inference_mode():
        one, x = layer(3, 2), made(1, 3, 6, 6)
        assert one.weight.is_inference()
        assert torch.equal(eight_bit.convolve(one, x), one(x.float() - 64))
        one.weight.neg_()
        assert torch.equal(eight_bit.convolve(one, x), one(x.float() - 64))


def test_packed_weights_are_no_part_of_the_layer() -> None:
    """They would stop it from being copied and stored."""
    one, x = layer(3, 2), made(1, 3, 6, 6)
    wanted = eight_bit.convolve(one, x)
    assert one.packed is not None
    assert one.state_dict().keys() == {"weight", "bias"}
    for copied in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert copied.packed is None
        assert torch.equal(eight_bit.convolve(copied, x), wanted)


def test_without_the_operator_there_is_none(untried: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise AttributeError("'_OpNamespace' 'onednn' object has no attribute 'qconv_prepack'")

    monkeypatch.setattr(eight_bit.Packed, "__init__", gone)
    assert not eight_bit.available()


def test_with_wrong_sums_there_is_none(untried: None, monkeypatch: pytest.MonkeyPatch) -> None:
    right = eight_bit.Packed.sums
    monkeypatch.setattr(eight_bit.Packed, "sums", lambda self, x: right(self, x) + 1)
    assert not eight_bit.available()


def test_on_another_processor_there_is_none(untried: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert not eight_bit.available()
