from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encdl.ciphers.nn.phases import circle, fold_channels, from_phases, phases_of, to_phases

SIZES = [(1, 1), (1, 2), (2, 1), (1, 7), (7, 1), (2, 2), (3, 3), (4, 6), (5, 8), (28, 31)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_round_trip(height: int, width: int) -> None:
    x = torch.rand(2, 3, height, width)
    phases = to_phases(x)
    assert phases.shape == (2, 12, (height + 1) // 2, (width + 1) // 2)
    assert torch.equal(from_phases(phases, height, width), x)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 33), st.integers(1, 33))
def test_round_trip_of_any_shape(batch: int, channels: int, height: int, width: int) -> None:
    x = torch.arange(batch * channels * height * width).view(batch, channels, height, width).double() + 1
    phases = to_phases(x)
    assert torch.equal(from_phases(phases, height, width), x)
    for phase in range(4):
        row, column = divmod(phase, 2)
        part = x[..., row::2, column::2]
        found = phases[:, phase::4]
        assert torch.equal(found[..., : part.shape[-2], : part.shape[-1]], part)
    assert phases.sum() == x.sum()  # the padding is zero


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_phases_by_themselves_are_those_of_to_phases(height: int, width: int) -> None:
    x = torch.rand(2, 3, height, width)
    together = to_phases(x)
    for phase, found in enumerate(phases_of(x)):
        assert torch.equal(found, together[:, phase::4])


def test_phase_0_is_never_padded() -> None:
    for height, width in SIZES:
        ones = to_phases(torch.ones(1, 1, height, width))
        assert bool(ones[:, 0].all())


def test_channels_keep_their_places() -> None:
    x = torch.arange(3.0).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert to_phases(x)[0, :, 0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


def test_gradients_pass() -> None:
    x = torch.rand(1, 1, 5, 3, requires_grad=True)
    from_phases(to_phases(x), 5, 3).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_fold_channels_orders_by_image_then_channel() -> None:
    x = torch.arange(2 * 3 * 4 * 5 * 6).view(2, 3, 4, 5, 6)
    folded = fold_channels(x)
    assert folded.shape == (6, 4, 5, 6)
    assert torch.equal(folded[4], x[1, 1])


def test_circle_has_no_edge() -> None:
    levels = torch.arange(256.0).view(1, 1, 16, 16)
    points = circle(levels)
    assert points.shape == (1, 2, 16, 16)
    torch.testing.assert_close(points.square().sum(1), torch.ones(1, 16, 16))
    torch.testing.assert_close(circle(levels + 256), points, atol=1e-5, rtol=0)
    torch.testing.assert_close(points[0, :, 0, 0], torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(points[0, :, 4, 0], torch.tensor([0.0, 1.0]), atol=1e-6, rtol=0)  # level 64
    two = circle(torch.tensor([0.0, 64.0]).view(1, 2, 1, 1)).flatten()
    torch.testing.assert_close(two, torch.tensor([1.0, 0.0, 0.0, 1.0]), atol=1e-6, rtol=0)
