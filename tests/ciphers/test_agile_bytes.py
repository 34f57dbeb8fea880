"""The compiled masks are those of the float networks, whatever the shapes, weights and threads."""

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
from encdl.ciphers import AgileCipher, agile_bytes
from encdl.nn.integer import IntegerConv2d

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


def agile(planes: int = 8, field_width: int = 3, coupling_width: int = 6, seed: int = 0) -> AgileCipher:
    """A cipher with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        one = AgileCipher(planes, field_width, coupling_width, restorer_width=4, restorer_blocks=0)
    return one.eval().requires_grad_(False)


def fill(part: nn.Module, weight: float, bias: float) -> None:
    for layer in part.modules():
        if isinstance(layer, IntegerConv2d):
            layer.weight.fill_(weight)
            layer.bias.fill_(bias)


def both(one: AgileCipher, image: Tensor, bits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ciphertext and mask from compiled code, and from floats; (B, 1, H, W) each."""
    ciphertext = one.encrypt(image, bits)
    mask = one.field(ciphertext, bits)
    levels = one(image.float(), bits[:, 0].float())
    return ciphertext, mask, *(each.to(torch.uint8) for each in levels)


def check(one: AgileCipher, image: Tensor, bits: Tensor) -> None:
    ciphertext, mask, wanted, wanted_mask = both(one, image, bits)
    assert torch.equal(mask, wanted_mask)
    assert torch.equal(ciphertext, wanted)
    assert torch.equal(one.decrypt(ciphertext, bits), image)


# ---- the same bytes


@needs_code
@settings(max_examples=120, deadline=None)
@given(
    planes=st.integers(1, 12),
    field_width=st.integers(1, 14),
    coupling_width=st.integers(1, 14),
    batch=st.integers(1, 3),
    height=st.integers(1, 70),
    width=st.integers(1, 150),
    seed=st.integers(0, 2**32),
)
def test_any_cipher(
    planes: int, field_width: int, coupling_width: int, batch: int, height: int, width: int, seed: int
) -> None:
    image, bits = (
        made(batch, 1, height, width, seed=seed),
        made(batch, 1, planes, height, width, seed=~seed, high=2),
    )
    check(agile(planes, field_width, coupling_width, seed), image, bits)


@needs_code
@pytest.mark.parametrize(("weight", "bias"), [(7, 127), (-7, -127), (7, -127), (-7, 127)])
@pytest.mark.parametrize("bit", [0, 1])
@pytest.mark.parametrize(("planes", "width"), [(8, 3), (32, 64), (8, 256)])
def test_the_largest_sums(planes: int, width: int, bit: int, weight: float, bias: float) -> None:
    """Every product of one sign, and activations at their limits from the second stage on."""
    one = agile(planes, width, width)
    fill(one, weight, bias)
    check(one, made(1, 1, 7, 69), torch.full((1, 1, planes, 7, 69), bit, dtype=torch.uint8))


@needs_code
@pytest.mark.parametrize("first", [7, -7])
def test_activations_at_their_limits(first: float) -> None:
    """The first stages drive every activation to one end; behind them weights of both signs, by halves."""
    one = agile()
    for network in (one.key_field, one.coupling):
        for layer in network.first.branches:
            fill(layer, first, 127)
        for layer in network.second.branches:
            layer.weight.copy_(
                torch.where(torch.arange(layer.weight.shape[1]).view(-1, 1, 1) % 2 == 0, 7.0, -7.0)
            )
    check(one, made(1, 1, 40, 66), torch.ones(1, 1, 8, 40, 66, dtype=torch.uint8))


@needs_code
def test_every_pair_of_bytes_couples() -> None:
    """All levels of ciphertext and mask meet: with F at 0 the planes spell the mask, and 256x256 hold all pairs."""
    one = agile()
    fill(one.key_field, 0, 0)
    image, spelled = made(1, 1, 512, 512), made(1, 1, 512, 512, seed=1)
    every = torch.arange(256, dtype=torch.uint8)
    image[0, 0, ::2, ::2], spelled[0, 0, ::2, ::2] = every.view(-1, 1), every
    bits = torch.stack([spelled >> bit & 1 for bit in range(8)], dim=2)
    check(one, image, bits)


@needs_code
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 3), (1, 300), (300, 1), (37, 71)])
def test_small_and_thin_pictures(size: tuple[int, int]) -> None:
    check(agile(), made(2, 1, *size), made(2, 1, 8, *size, seed=1, high=2))


@needs_code
def test_any_layout_of_memory() -> None:
    one = agile()
    image, bits = made(2, 1, 31, 40), made(2, 1, 8, 31, 40, seed=1, high=2)
    turned = image.transpose(2, 3).contiguous().transpose(2, 3)
    strided = made(2, 1, 8, 31, 80, seed=1, high=2)
    strided[..., ::2] = bits
    assert torch.equal(one.encrypt(turned, strided[..., ::2]), one.encrypt(image, bits))


# ---- threads


@needs_code
@pytest.mark.parametrize("shape", [(300, 200), (130, 90), (34, 36), (1, 4000), (4000, 1)])
def test_threads_share_a_picture(threads: None, shape: tuple[int, ...]) -> None:
    one, image = agile(), made(2, 1, *shape)
    bits = made(2, 1, 8, *shape, seed=1, high=2)
    check(one, image, bits)


@needs_code
def test_many_callers_at_a_time(threads: None) -> None:
    one = agile()
    shapes = [(90 + seed % 7, 80 - seed % 5) for seed in range(40)]
    inputs = [
        (made(1, 1, *shape, seed=seed), made(1, 1, 8, *shape, seed=~seed, high=2))
        for seed, shape in enumerate(shapes)
    ]
    wanted = [one.encrypt(*each) for each in inputs]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda each: one.encrypt(*each), inputs))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@needs_code
def test_without_a_runtime_one_thread_does_it(threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agile_bytes, "_openmp", lambda: None)
    check(agile(), made(1, 1, 200, 210), made(1, 1, 8, 200, 210, high=2))


@needs_code
def test_a_picture_too_large_for_what_a_thread_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = agile_bytes._rooms.room
    monkeypatch.setattr(agile_bytes, "MAX_ROOM", 1000)
    check(agile(), made(1, 1, 60, 60), made(1, 1, 8, 60, 60, high=2))
    assert agile_bytes._rooms.room is kept


# ---- weights that change


@needs_code
def test_changed_weights_are_packed_again() -> None:
    one, image, bits = agile(), made(1, 1, 12, 14), made(1, 1, 8, 12, 14, high=2)
    check(one, image, bits)
    assert agile_bytes._packed(one.key_field, one.coupling) is agile_bytes._packed(
        one.key_field, one.coupling
    )
    one.key_field.out.weight.neg_()
    check(one, image, bits)
    one.load_state_dict(agile(seed=1).state_dict())
    check(one, image, bits)
    one.coupling.first.branches[0].weight.data = agile(seed=2).coupling.first.branches[0].weight.data
    check(one, image, bits)
    one.coupling.out.bias.add_(1)
    check(one, image, bits)
    one.key_field, one.coupling = agile(seed=3).key_field, agile(seed=4).coupling
    check(one, image, bits)
    one.coupling = agile(seed=5).coupling
    check(one, image, bits)


@needs_code
@pytest.mark.parametrize("changed", ["data", "NumPy", "fused optimiser"])
def test_changes_that_pytorch_does_not_count(changed: str) -> None:
    one, image, bits = agile(), made(1, 1, 12, 14), made(1, 1, 8, 12, 14, high=2)
    before, weight = one.encrypt(image, bits), one.coupling.out.weight
    if changed == "data":
        weight.data.neg_()
    if changed == "NumPy":
        np.negative(weight.numpy(), out=weight.numpy())
    if changed == "fused optimiser":
        weight.requires_grad_(True)
        weight.grad = torch.ones_like(weight)
        torch.optim.AdamW([weight], lr=2.0, fused=True).step()
        weight.requires_grad_(False)
    check(one, image, bits)
    assert not torch.equal(one.encrypt(image, bits), before)


@needs_code
def test_weights_of_another_type() -> None:
    one, image, bits = agile(), made(1, 1, 12, 14), made(1, 1, 8, 12, 14, high=2)
    wanted = one.encrypt(image, bits)
    assert torch.equal(one.double().encrypt(image, bits), wanted)


@needs_code
def test_weights_of_inference_mode() -> None:
    with torch.inference_mode():
        one, image, bits = agile(), made(1, 1, 12, 14), made(1, 1, 8, 12, 14, high=2)
        for _ in range(2):
            check(one, image, bits)
            one.coupling.out.weight.neg_()


@needs_code
def test_packed_weights_are_no_part_of_the_cipher() -> None:
    """They would stop it from being copied and stored."""
    one, image, bits = agile(), made(1, 1, 12, 14), made(1, 1, 8, 12, 14, high=2)
    before = one.state_dict().keys()
    wanted = one.encrypt(image, bits)
    assert one.state_dict().keys() == before
    for copied in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert torch.equal(copied.encrypt(image, bits), wanted)


# ---- whatever PyTorch is set to


@needs_code
def test_a_default_device_changes_nothing() -> None:
    """Memory of an accelerator is none that C code on the processor may write."""
    one, image, bits = agile(), made(1, 1, 21, 30), made(1, 1, 8, 21, 30, high=2)
    with torch.device("meta"):
        ciphertext = one.encrypt(image, bits)
    assert torch.equal(ciphertext, agile().encrypt(image, bits))


# ---- machines without the code


def test_without_the_library_floats_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    one, image, bits = agile(), made(1, 1, 20, 30), made(1, 1, 8, 20, 30, high=2)
    ciphertext = one.encrypt(image, bits)
    monkeypatch.setattr(compiled, "library", lambda *_: None)
    assert not agile_bytes.available()
    assert torch.equal(one.encrypt(image, bits), ciphertext)
    assert torch.equal(one.decrypt(ciphertext, bits), image)
