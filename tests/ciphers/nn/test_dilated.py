from __future__ import annotations

import pytest
import torch

from encdl.ciphers.nn.dilated import DILATIONS, DilatedBlock, DilatedNet


def trained_block(width: int) -> DilatedBlock:
    """A block away from its identity start."""
    torch.manual_seed(0)
    block = DilatedBlock(width)
    torch.nn.init.normal_(block.fuse.weight)
    return block


def test_a_new_block_is_the_identity() -> None:
    x = torch.randn(2, 8, 9, 5)
    assert torch.equal(DilatedBlock(8)(x), x)


def test_a_new_block_can_learn() -> None:
    block = DilatedBlock(8)
    block(torch.randn(1, 8, 6, 6)).square().sum().backward()
    assert bool(block.fuse.weight.grad.any())


@pytest.mark.parametrize("size", [(1, 1), (1, 20), (17, 33)])
def test_shapes_are_kept(size: tuple[int, int]) -> None:
    assert trained_block(8)(torch.randn(2, 8, *size)).shape == (2, 8, *size)
    assert DilatedNet(3, 5, 8, 2)(torch.randn(2, 3, *size)).shape == (2, 5, *size)
    assert DilatedNet(3, 5, 8, 0)(torch.randn(2, 3, *size)).shape == (2, 5, *size)


@pytest.mark.parametrize("width", [1, 2, 6, 15])
def test_a_width_that_does_not_split_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match="multiple of 4") as raised:
        DilatedBlock(width)
    assert "\n" not in str(raised.value)


def test_a_block_sees_all_its_dilations_and_no_farther() -> None:
    block = trained_block(8).double()
    x = torch.zeros(1, 8, 33, 33, dtype=torch.double)
    spot = x.clone()
    spot[0, :, 16, 16] = 1.0
    touched = (block(spot) != block(x)).any(1)[0]
    expected = torch.zeros(33, 33, dtype=torch.bool)
    for d in DILATIONS:
        expected[16 - d : 17 + d : d, 16 - d : 17 + d : d] = True
    assert torch.equal(touched, expected)


def test_a_image_does_not_depend_on_its_neighbours() -> None:
    net = DilatedNet(2, 2, 8, 2).eval()
    for module in net:
        if isinstance(module, DilatedBlock):
            torch.nn.init.normal_(module.fuse.weight, std=0.1)
    x = torch.randn(4, 2, 10, 11)
    with torch.no_grad():
        alone = torch.cat([net(one[None]) for one in x])
        torch.testing.assert_close(net(x), alone)
        other = net(torch.cat([x[:1], torch.randn(3, 2, 10, 11) * 100]))
        torch.testing.assert_close(other[:1], alone[:1])
