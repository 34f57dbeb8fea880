"""The compiled networks give what the float layers give, whatever their shapes, weights and threads."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from encdl import compiled
from encdl.ciphers import AgileCipher, agile_bytes, agile_packed
from encdl.ciphers.agile_networks import KEY_LEVEL, ContentCoupling, KeyField, signed_features
from encdl.ciphers.base import plane_bytes
from encdl.nn.integer import IntegerConv2d, IntegerDilatedStage
from encdl.nn.phases import from_phases, phases_of, to_phases

needs_code = pytest.mark.skipif(
    not agile_bytes.available(), reason="no compiled code here: no C compiler, or no processor with AVX2"
)


@pytest.fixture
def threads() -> Iterator[None]:
    """Four threads, more than most test machines have cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def made(*shape: int, seed: int = 0, high: int = 256) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, shape, generator=draw, dtype=torch.uint8)


class Small(nn.Module):
    """A network of any form: two stages and a last convolution."""

    def __init__(
        self, inputs: int, width: int, outputs: int, dilations: tuple[int, ...], seed: int = 0
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            hidden = width * len(dilations)
            self.first = IntegerDilatedStage(inputs, width, dilations, shift=seed % 6)
            self.second = IntegerDilatedStage(hidden, width, dilations[::-1], shift=5)
            self.out = IntegerConv2d(hidden, outputs, dilations[0])
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """The sums."""
        out: Tensor = self.out(self.second(self.first(x)))
        return out


def run(net: Small, x: Tensor, shift: int) -> Tensor:
    """The compiled network for bytes uint8 (C, h, w), with rubbish where nothing may look."""
    channels, height, width = x.shape
    pairs = agile_bytes._room((channels + 1) // 2, height, width)
    pairs.bytes.fill(agile_bytes.ZERO)
    inside = pairs.bytes[:, :, agile_bytes.MARGIN : agile_bytes.MARGIN + width]
    for channel in range(channels):
        inside[:, channel // 2, :, channel % 2] = x[channel].numpy()
    if channels % 2:
        inside[:, -1, :, 1] = 99  # its weights are 0
    return agile_packed.network(net, shift)(pairs).float()


def unpaired(pairs: agile_bytes.Pairs, channels: int) -> Tensor:
    width = slice(agile_bytes.MARGIN, agile_bytes.MARGIN + pairs.width)
    inside = torch.from_numpy(pairs.bytes[:, :, width].copy())
    pairs.bytes[:, :, width] = agile_bytes.ZERO
    assert (pairs.bytes == agile_bytes.ZERO).all(), "zeros must surround a row"
    return inside.permute(1, 3, 0, 2).flatten(0, 1)[:channels].float() - agile_bytes.ZERO


# ---- the same integers


@needs_code
@settings(max_examples=100, deadline=None)
@given(
    inputs=st.integers(1, 30),
    width=st.integers(1, 14),
    outputs=st.integers(1, 7),
    dilations=st.lists(st.integers(1, 16), min_size=1, max_size=4).map(tuple),
    height=st.integers(1, 40),
    columns=st.integers(1, 80),
    seed=st.integers(0, 2**32),
)
def test_any_network(
    inputs: int,
    width: int,
    outputs: int,
    dilations: tuple[int, ...],
    height: int,
    columns: int,
    seed: int,
) -> None:
    net, x = (
        Small(inputs, width, outputs, dilations, seed),
        made(inputs, height, columns, seed=seed, high=128),
    )
    wanted = (net(x[None].float() - 64)[0] / 4).floor() % 256
    assert torch.equal(run(net, x, shift=2), wanted)


@needs_code
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("byte", [0, 127])
@pytest.mark.parametrize("width", [3, 256])
def test_the_largest_sums(width: int, byte: int, sign: float) -> None:
    net = Small(96, width, 3, (1, 2, 4, 8))
    for layer in net.modules():
        if isinstance(layer, IntegerConv2d):
            layer.weight.fill_(7 * sign)
            layer.bias.fill_(127 * sign)
    x = torch.full((96, 5, 37), byte, dtype=torch.uint8)
    assert torch.equal(run(net, x, shift=0), net(x[None].float() - 64)[0] % 256)


@needs_code
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 80), st.integers(0, 2**32))
def test_signs(planes: int, height: int, width: int, seed: int) -> None:
    bits = made(planes, height, width, seed=seed, high=2)
    wanted = torch.cat(phases_of(bits[None])[1:], dim=1)[0].float() * 2 - 1
    assert torch.equal(unpaired(agile_bytes.signs(bits), 3 * planes), wanted)


@needs_code
def test_features_of_every_pair_of_bytes() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    masked, mask = torch.meshgrid(every, every, indexing="ij")
    found = unpaired(agile_bytes.features(masked, mask, int(KEY_LEVEL)), 16)
    assert torch.equal(found, signed_features(masked[None, None].float(), mask[None, None].float())[0])


@needs_code
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (37, 70), (1, 300), (300, 1)])
def test_both_networks(size: tuple[int, int]) -> None:
    one = AgileCipher().requires_grad_(False)
    bits = made(1, 8, *size, high=2)
    signs = torch.cat(phases_of(bits)[1:], dim=1).float() * 2 - 1
    assert torch.equal(one.key_field.on_bytes(bits[0]).float(), one.key_field(signs)[0, 0] % 256)
    masked, mask = made(1, 1, *size, seed=1), made(1, 1, *size, seed=2)
    found = one.coupling.on_bytes(masked[0, 0], mask[0, 0])
    assert torch.equal(found.float(), one.coupling(masked.float(), mask.float())[0] % 256)


@needs_code
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 80), st.integers(0, 2**32))
def test_masks(planes: int, height: int, width: int, seed: int) -> None:
    bits = made(planes, height, width, seed=seed, high=2)
    field = made((height + 1) // 2, (width + 1) // 2, seed=seed + 1)
    others = made(3, *field.shape, seed=seed + 2)
    spelled = to_phases(plane_bytes(bits[None]).float())[0].to(torch.uint8)
    first = agile_bytes.first_mask(bits, field)
    assert torch.equal(first, spelled[0] + field)
    wanted = from_phases(torch.cat([first[None], spelled[1:] + others])[None], height, width)[0, 0]
    assert torch.equal(agile_bytes.whole_mask(bits, first, others), wanted)


# ---- threads


@needs_code
@pytest.mark.parametrize("shape", [(300, 200), (130, 90), (34, 36), (1, 4000), (4000, 1)])
def test_threads_share_a_picture(threads: None, shape: tuple[int, ...]) -> None:
    one, image = AgileCipher().requires_grad_(False), made(1, 1, *shape)
    bits = made(1, 1, 8, *shape, seed=1, high=2)
    together = one.encrypt(image, bits)
    torch.set_num_threads(1)
    assert torch.equal(one.encrypt(image, bits), together)


@needs_code
def test_many_callers_at_a_time(threads: None) -> None:
    coupling = ContentCoupling(6).requires_grad_(False)
    inputs = [(made(90, 80, seed=seed), made(90, 80, seed=seed + 50)) for seed in range(40)]
    wanted = [coupling.on_bytes(*each) for each in inputs]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda each: coupling.on_bytes(*each), inputs))
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@needs_code
def test_without_a_runtime_one_thread_does_it(threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    field, bits = KeyField(8, 3).requires_grad_(False), made(8, 200, 200, high=2)
    wanted = field.on_bytes(bits)
    monkeypatch.setattr(agile_bytes, "_openmp", lambda: None)
    assert torch.equal(field.on_bytes(bits), wanted)


# ---- weights that change


@needs_code
def test_changed_weights_are_packed_again() -> None:
    net, x = Small(3, 2, 2, (1, 2)), made(3, 6, 6, high=128)

    def same(shift: int = 0) -> bool:
        wanted = (net(x[None].float() - 64)[0] / 2**shift).floor() % 256
        return torch.equal(run(net, x, shift), wanted)

    assert same()
    assert agile_packed.network(net, 0) is agile_packed.network(net, 0)
    net.out.weight.neg_()
    assert same()
    net.load_state_dict(Small(3, 2, 2, (1, 2), seed=1).state_dict())
    assert same()
    net.first.branches[0].weight.data = Small(3, 2, 2, (1, 2), seed=2).first.branches[0].weight.data
    assert same()
    net.out.bias.add_(1)
    assert same()
    assert same(shift=3)
    assert same()
    net.double()
    assert torch.equal(run(net, x, 0), net.float()(x[None].float() - 64)[0] % 256)


@needs_code
@pytest.mark.parametrize("changed", ["data", "NumPy", "fused optimiser"])
def test_changes_that_pytorch_does_not_count(changed: str) -> None:
    net, x = Small(3, 2, 2, (1, 2)), made(3, 6, 6, high=128)
    before, weight = run(net, x, shift=0), net.out.weight
    if changed == "data":
        weight.data.neg_()
    if changed == "NumPy":
        np.negative(weight.numpy(), out=weight.numpy())
    if changed == "fused optimiser":
        weight.requires_grad_(True)
        weight.grad = torch.ones_like(weight)
        torch.optim.AdamW([weight], lr=2.0, fused=True).step()
        weight.requires_grad_(False)
    after = run(net, x, shift=0)
    assert torch.equal(after, net(x[None].float() - 64)[0] % 256)
    assert not torch.equal(after, before)


@needs_code
def test_weights_of_inference_mode() -> None:
    with torch.inference_mode():
        net, x = Small(3, 2, 2, (1, 2)), made(3, 6, 6, high=128)
        for _ in range(2):
            assert torch.equal(run(net, x, shift=0), net(x[None].float() - 64)[0] % 256)
            net.out.weight.neg_()


@needs_code
def test_packed_weights_are_no_part_of_the_network() -> None:
    """They would stop it from being copied and stored."""
    field, bits = KeyField(8, 3).requires_grad_(False), made(8, 20, 20, high=2)
    before = field.state_dict().keys()
    wanted = field.on_bytes(bits)
    assert field.state_dict().keys() == before
    for copied in (copy.deepcopy(field), pickle.loads(pickle.dumps(field))):
        assert torch.equal(copied.on_bytes(bits), wanted)


# ---- whatever PyTorch is set to


@needs_code
def test_a_default_device_changes_nothing() -> None:
    """Memory of an accelerator is none that C code on the processor may write."""
    one, image = AgileCipher().requires_grad_(False), made(1, 1, 21, 30)
    bits = made(1, 1, 8, 21, 30, seed=1, high=2)
    ciphertext = one.encrypt(image, bits)
    with torch.device("meta"):
        found = copy.deepcopy(one).encrypt(image, bits)
    assert torch.equal(found, ciphertext)


# ---- machines without the code


def test_without_the_library_floats_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    one = AgileCipher().eval().requires_grad_(False)
    image, bits = made(1, 1, 20, 30), made(1, 1, 8, 20, 30, high=2)
    ciphertext = one.encrypt(image, bits)
    monkeypatch.setattr(compiled, "library", lambda *_: None)
    assert not agile_bytes.available()
    assert torch.equal(one.encrypt(image, bits), ciphertext)
    assert torch.equal(one.decrypt(ciphertext, bits), image)
