"""The decryption network: shapes, independence, tiles, what it must not see, and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from encdl.ciphers.nn import decryption
from encdl.ciphers.nn.decryption import DecryptionNetwork
from encdl.ciphers.nn.shrinkage import ESTIMATES, REACH


def network(width: int = 8, blocks: int = 2, **settings: object) -> DecryptionNetwork:
    """With random weights everywhere: fresh ones leave the blocks out."""
    torch.manual_seed(0)
    made = DecryptionNetwork(width, blocks, **settings)  # type: ignore[arg-type]
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return made.eval()


def levels(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).float()


def losses(*shape: int, share: float = 0.2) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) < share).float()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 1, 9), (1, 1, 7, 5), (3, 1, 8, 6), (1, 1, 33, 20)], ids=str)
def test_any_size(shape: tuple[int, ...]) -> None:
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            level, hit, *_ = network()(levels(*shape), losses(*shape))
        for found in (level, hit):
            assert (found.shape, found.dtype) == (shape, torch.float32)
            assert bool(found.isfinite().all())


@pytest.mark.parametrize("shape", [(0, 1, 4, 4), (1, 1, 0, 4), (1, 1, 4, 0)], ids=str)
def test_no_pixel(shape: tuple[int, ...]) -> None:
    level, hit, *_ = network()(torch.zeros(shape), torch.zeros(shape))
    assert level.shape == hit.shape == shape


def test_integers_and_booleans_are_as_good() -> None:
    x, lost = levels(2, 1, 9, 12), losses(2, 1, 9, 12)
    with torch.no_grad():
        expected = network()(x, lost)
        found = network()(x.to(torch.uint8), lost.bool())
    assert all(map(torch.equal, found, expected))


def test_an_image_does_not_depend_on_its_batch() -> None:
    x, lost, net = levels(5, 1, 17, 14), losses(5, 1, 17, 14), network()
    with torch.no_grad():
        together = net(x, lost)
        for index in range(5):
            alone = net(x[index : index + 1], lost[index : index + 1])
            for one, whole in zip(alone, together, strict=True):
                torch.testing.assert_close(one[0], whole[index], atol=1e-4, rtol=1e-4)


def test_what_stands_in_lost_pixels_is_not_seen() -> None:
    x, lost = levels(1, 1, 16, 18), losses(1, 1, 16, 18)
    other = torch.where(lost > 0, levels(1, 1, 16, 18, seed=5), x)
    assert not torch.equal(x, other)
    with torch.no_grad():
        assert all(map(torch.equal, network()(x, lost), network()(other, lost)))
        assert not torch.equal(network()(x, lost)[0], network()(x, torch.zeros_like(lost))[0])


def test_levels_lie_on_a_circle_and_have_a_height() -> None:
    """255 and 0 are neighbours by cosine and sine, and told apart by their height and by what may have wrapped."""
    x, none = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    net = network(blocks=0)
    with torch.no_grad():
        others = net.enter.weight.view(8, decryption.INPUTS, 4, 3, 3)[:, 2:-1]  # without cosine, sine, lost
        others.zero_()
        zero, last, middle = (net(x + level, none).replacement for level in (0, 255, 128))
    assert (zero - last).abs().max() < 0.1 * (zero - middle).abs().max()


@pytest.mark.parametrize("size", [(64, 64), (75, 97), (32, 129), (1, 130)], ids=str)
def test_tiles_are_seamless(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    x, lost, net = levels(3, 1, *size), losses(3, 1, *size), network()
    with torch.no_grad():
        whole = net(x, lost)
        for most in (1, 96 * 96 * 2):
            monkeypatch.setattr(decryption, "TILE", 32)
            monkeypatch.setattr(decryption, "WHOLE_PIXELS", most)
            for one, other in zip(net(x, lost), whole, strict=True):
                torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_reach() -> None:
    """A pixel beyond it changes nothing, and one as far as it does."""
    net = network(blocks=1, dilations=(1, 3))
    assert net.reach == 2 * (1 + 3 + 1) + REACH
    x = torch.full((1, 1, 4, 64), 100.0)
    changed = x.clone()
    changed[..., 1] += 50
    with torch.no_grad():
        lost = torch.zeros_like(x)
        differs = (net(x, lost)[0] != net(changed, lost)[0]).any(2).flatten().nonzero().flatten()
    assert 4 < int(differs.max()) <= 1 + net.reach


def test_gradients_reach_every_weight() -> None:
    net = network().train()
    found = net(levels(2, 1, 24, 24), losses(2, 1, 24, 24))
    torch.stack([logits.square().mean() for logits in found]).sum().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert bool(weight.grad.isfinite().all()), name
        assert bool(weight.grad.any()), name


def test_bfloat16_is_for_training_alone() -> None:
    x, lost = levels(1, 1, 16, 16), losses(1, 1, 16, 16)
    net = network().train()
    with torch.no_grad():
        full = net(x, lost)[0]
        net.trains_in_bfloat16 = True
        half = net(x, lost)[0]
        assert half.dtype == torch.float32
        assert not torch.equal(half, full)
        torch.testing.assert_close(half, full, atol=0.1, rtol=0.1)
        assert torch.equal(net.eval()(x, lost)[0], full)
        with torch.autocast("cpu", torch.bfloat16):  # whatever surrounds it
            assert torch.equal(net(x, lost)[0], full)


def test_the_width_must_fit_the_dilations() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        DecryptionNetwork(10, 1)
    assert DecryptionNetwork(6, 1, (1, 2, 4)).reach == 2 * (4 + 2) + REACH


def test_the_weights_fit_the_budget() -> None:
    """490,000 parameters at its default size: 2 MB in float32."""
    assert sum(weight.numel() for weight in DecryptionNetwork().parameters()) == pytest.approx(490e3, rel=0.01)


def head(levels: float, replacement: float, lost: bool = False, **outputs: float) -> tuple[float, float]:
    """Level and hit logit of one pixel whose outputs are given."""
    names = ("correction", "mixture_offset", "mixture_slope", "hit_offset", "hit_slope")
    logit = torch.tensor(replacement / 255).logit()
    made = torch.stack([logit, *(torch.tensor(outputs.get(name, 0.0)) for name in names)])
    chosen = torch.full((ESTIMATES,), outputs.get("estimates", 0.0))
    pixel = torch.full((1, 1, 1, 1), levels), torch.full((1, 1, 1, 1), float(lost))
    hints = torch.full((1, ESTIMATES, 1, 1), levels + outputs.get("hint", 0.0))
    found = decryption._mixed(torch.cat([made, chosen]).view(1, -1, 1, 1), *pixel, hints)
    return 255 * float(found.level.sigmoid()), float(found.hit)


def test_a_level_near_its_replacement_is_corrected() -> None:
    level, hit = head(100, 102, correction=-0.25)
    assert level == pytest.approx(100 - 0.25 * decryption.CORRECTION, abs=0.3)
    assert hit < 0


def test_a_correction_starts_from_the_estimates_if_the_network_says_so() -> None:
    assert head(100, 102, hint=6.0, estimates=20.0)[0] == pytest.approx(106, abs=0.3)
    assert head(100, 102, hint=6.0, estimates=-20.0)[0] == pytest.approx(100, abs=0.3)


def test_a_level_far_from_its_replacement_is_replaced() -> None:
    level, hit = head(100, 220)
    assert level == pytest.approx(220, abs=0.3)
    assert hit > 0


def test_a_lost_level_is_replaced_wherever_it_lies() -> None:
    assert head(0, 3, lost=True, correction=5.0)[0] == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize(("levels", "correction", "exact"), [(2, -1.0, 0), (254, 1.0, 255)])
def test_a_correction_ends_at_black_and_white(levels: float, correction: float, exact: float) -> None:
    level, _ = head(levels, levels, correction=correction, mixture_offset=-9.0)
    assert level == pytest.approx(exact, abs=0.01)


def test_hits_do_not_move_the_replacement() -> None:
    """Told by its distance, they would draw it away from pixels that were not hit."""
    outputs = torch.randn(1, decryption.OUTPUTS, 4, 4, requires_grad=True)
    hints = levels(1, ESTIMATES, 4, 4)
    decryption._mixed(outputs, levels(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), hints).hit.sum().backward()
    assert outputs.grad is not None
    assert bool(outputs.grad[:, 4:6].all())
    outputs.grad[:, 4:6] = 0
    assert not bool(outputs.grad.any())


@pytest.mark.parametrize(("most", "mirrors"), [(154, 4), (100, 2), (38, 1)])
def test_averaging_over_mirror_images(monkeypatch: pytest.MonkeyPatch, most: int, mirrors: int) -> None:
    x, lost, net = levels(2, 1, 11, 14), losses(2, 1, 11, 14), network()
    monkeypatch.setattr(decryption, "SMALL_PIXELS", most)
    average = net.averaged(x, lost)
    mirrored = net.averaged(x.flip(3), lost.flip(3))
    for one, other in zip(average, mirrored, strict=True):
        assert torch.allclose(one, other.flip(3), atol=1e-4) == (mirrors > 1)
    upright = net.averaged(x.flip(2), lost.flip(2)).level.flip(2)
    assert torch.allclose(upright, average.level, atol=1e-4) == (mirrors == 4)
    with torch.no_grad():
        alone = net(x, lost).level
    assert torch.allclose(alone, average.level, atol=1e-3) == (mirrors == 1)
