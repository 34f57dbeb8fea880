"""What holds for the agile cipher alone: exact sums, one stack of planes a ciphertext, uniformity, damage stays put."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from torch import Tensor, nn

from encdl.ciphers import AgileCipher, compiled_ciphers
from encdl.ciphers.compiled_ciphers import SEED, drawn_integers
from encdl.ciphers.damage import DAMAGES, GaussianNoise
from encdl.ciphers.mask_network import HALVES, HIGH, LOW, FixedConv2d, MaskNetwork
from encdl.ciphers.nn.integer import EXACT_LIMIT, INPUT_LIMIT, WEIGHT_LIMIT
from encdl.ciphers.nn.phases import to_phases
from encdl.metrics.statistics import chi_square, entropy_bits
from tests.ciphers.support import cipher, image_keys, noise, planes
from tests.mni import mni_slice

NETWORK = MaskNetwork()
SHAPES = ((1, 1, 1, 1), (2, 1, 1, 2), (1, 1, 2, 1), (3, 1, 5, 7), (1, 1, 40, 33), (2, 1, 64, 64), (1, 1, 70, 131))


def agile(name: str = "default") -> AgileCipher:
    one = cipher(name)
    assert isinstance(one, AgileCipher)
    return one


# ---- the weights are the published ones


def test_the_weights_are_drawn_from_the_published_seed() -> None:
    numbers = drawn_integers(SEED)
    for half in (NETWORK.f, NETWORK.g):
        for layer in (*half.branches(0), *half.branches(1), half.out):
            weights = [next(numbers) % 15 - 7 for _ in range(layer.weight.numel())]
            biases = [next(numbers) - 127 for _ in range(layer.bias.numel())]
            assert layer.weight.flatten().tolist() == weights
            assert layer.bias.tolist() == biases


def test_the_weights_have_no_gradient_and_are_in_no_weights_file() -> None:
    one = agile()
    assert not list(one.encryption.parameters())
    assert not [name for name in one.state_dict() if name.startswith("encryption")]


# ---- every sum is exact


def bounds() -> dict[str, tuple[FixedConv2d, int]]:
    """Every convolution with the largest input that the definition lets it have."""
    found = {}
    for name, half in (("f", NETWORK.f), ("g", NETWORK.g)):
        for stage, limit in ((0, 1), (1, max(-LOW, HIGH))):
            for branch, layer in enumerate(half.branches(stage)):
                found[f"{name} {stage} {branch}"] = (layer, limit)
        found[f"{name} out"] = (half.out, max(-LOW, HIGH))
    assert len(found) == sum(isinstance(layer, FixedConv2d) for layer in NETWORK.modules())
    return found


@pytest.mark.parametrize("name", bounds())
def test_every_sum_is_exact_in_float32_and_tf32(name: str) -> None:
    layer, limit = bounds()[name]
    assert limit < INPUT_LIMIT
    assert float(layer.weight.abs().max()) <= WEIGHT_LIMIT
    largest = float((layer.weight.double().abs().sum((1, 2, 3)) * limit + layer.bias.double().abs()).max())
    assert largest == layer.worst_sum(limit)
    assert largest + 255 < EXACT_LIMIT  # a key byte comes on top
    assert largest < 2**15  # what mask_network.c sums in


def test_no_input_of_a_run_passes_its_bound() -> None:
    """The bounds above are read off the definition; here they are watched in a run."""
    seen: dict[str, float] = {}

    def watch(name: str, layer: FixedConv2d, limit: int) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            assert inputs[0].dtype == output.dtype == torch.float32
            assert torch.equal(inputs[0], inputs[0].round())
            assert torch.equal(output, output.round())
            assert output.abs().max().item() <= layer.worst_sum(limit)
            seen[name] = max(seen.get(name, 0.0), inputs[0].abs().max().item())

        return hook

    with ExitStack() as stack:
        for name, (layer, limit) in bounds().items():
            stack.callback(layer.register_forward_hook(watch(name, layer, limit)).remove)
        for key_bytes in (noise(2, 1, 65, 64), torch.zeros(1, 1, 33, 33, dtype=torch.uint8)):
            NETWORK(key_bytes)
            NETWORK(255 - key_bytes)
    assert all(seen[name] <= limit for name, (_, limit) in bounds().items())


# ---- bytes give what floats give


def masks(vectors: int, key_bytes: Tensor) -> Tensor:
    """By the vectors asked for, however narrow the image is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled_ciphers, "_WIDEST", vectors)
        patch.setattr(compiled_ciphers, "_WIDE_FROM", 1)
        return compiled(key_bytes)


def compiled(key_bytes: Tensor) -> Tensor:
    """By compiled code."""
    return torch.from_numpy(compiled_ciphers.masks(key_bytes.numpy()))


WIDTHS = (compiled_ciphers.BITS_128, compiled_ciphers.AVX2, compiled_ciphers.AVX512)
VECTORS = pytest.mark.parametrize("vectors", WIDTHS, ids=["128 bits", "AVX2", "AVX-512"])
"""A processor without the wider ones takes what it has."""


@pytest.mark.skipif(not compiled_ciphers.available(), reason="no compiled code for this processor")
@VECTORS
@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 80), st.integers(1, 80))
def test_bytes_give_what_floats_give(vectors: int, seed: int, batch: int, height: int, width: int) -> None:
    key_bytes = noise(batch, 1, height, width, seed=seed)
    assert torch.equal(masks(vectors, key_bytes), NETWORK(key_bytes))


@pytest.mark.skipif(not compiled_ciphers.available(), reason="no compiled code for this processor")
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(65, 700))
def test_all_vectors_give_the_same(seed: int, height: int, width: int) -> None:
    key_bytes = noise(2, 1, height, width, seed=seed)
    assert all(torch.equal(masks(vectors, key_bytes), compiled(key_bytes)) for vectors in WIDTHS)


EDGES = [*SHAPES, (1, 1, 512, 512), (2, 1, 301, 1), (1, 1, 2, 127), (1, 1, 31, 129), (1, 1, 19, 1023)]


@pytest.mark.skipif(not compiled_ciphers.available(), reason="no compiled code for this processor")
@VECTORS
@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_bytes_give_what_floats_give_at_the_edges(vectors: int, shape: tuple[int, ...]) -> None:
    for key_bytes in (noise(*shape), torch.zeros(shape, dtype=torch.uint8), torch.full(shape, 255, dtype=torch.uint8)):
        assert torch.equal(masks(vectors, key_bytes), NETWORK(key_bytes))


@pytest.mark.skipif(not compiled_ciphers.available(), reason="no compiled code for this processor")
def test_no_path_reads_what_its_memory_held_before(monkeypatch: pytest.MonkeyPatch) -> None:
    key_bytes = noise(1, 1, 37, 150)
    kept = SimpleNamespace(room=np.empty(2**20, np.uint8))
    monkeypatch.setattr(compiled_ciphers, "_kept", kept)
    for vectors in WIDTHS:
        found = []
        for held in (0, 0xA5):
            kept.room[:] = held
            found.append(masks(vectors, key_bytes))
        assert torch.equal(*found)


@pytest.mark.skipif(not compiled_ciphers.available(), reason="no compiled code for this processor")
def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_ciphers, "THREAD_BYTES", 1)
    key_bytes = noise(9, 1, 50, 41).numpy()
    found = [compiled_ciphers.masks(key_bytes, threads) for threads in (1, 2, 4, 16)]
    assert all(np.array_equal(masks, found[0]) for masks in found)


# ---- from every image to every ciphertext leads exactly one stack of eight planes


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 2), st.integers(1, 45), st.integers(1, 45))
def test_a_stack_of_planes_leads_from_any_image_to_any_ciphertext(
    seed: int, batch: int, height: int, width: int
) -> None:
    image, target = noise(2, batch, 1, height, width, seed=seed)
    stack = NETWORK.key_bytes(target - image)
    assert torch.equal(agile().encrypt(image, stack), target)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_stack_is_the_only_one(shape: tuple[int, ...]) -> None:
    key_bytes = noise(*shape)
    assert torch.equal(NETWORK.key_bytes(NETWORK(key_bytes)), key_bytes)
    assert torch.equal(NETWORK(NETWORK.key_bytes(key_bytes)), key_bytes)


def test_a_brain_has_a_stack_that_makes_it_black() -> None:
    one, image = agile(), mni_slice(90)
    black = torch.zeros_like(image)
    stack = NETWORK.key_bytes(black - image)
    assert torch.equal(one.encrypt(image, stack), black)
    assert torch.equal(one.decrypt(black, stack), image)


def test_two_pixels_under_all_65536_stacks_give_all_ciphertexts() -> None:
    """Nothing is solved here: all keys are tried on two pixels."""
    everything = torch.arange(1 << 16)
    stacks = torch.stack([everything & 255, everything >> 8], dim=1).view(-1, 1, 1, 2).to(torch.uint8)
    ciphertext = agile().encrypt(noise(1, 1, 1, 2).expand(1 << 16, -1, -1, -1), stacks).flatten(1).int()
    assert len(torch.unique(ciphertext[:, 0] * 256 + ciphertext[:, 1])) == 1 << 16


@pytest.mark.parametrize(("count", "values"), [(1, 2), (4, 16)])
def test_fewer_planes_than_eight_cannot_give_all_ciphertexts(count: int, values: int) -> None:
    """Why a file has eight: four planes leave 16 values of the mask a pixel, one plane two."""
    stacks = torch.arange(1 << count, dtype=torch.uint8).view(-1, 1, 1, 1)
    pixel = torch.full((1 << count, 1, 1, 1), 99, dtype=torch.uint8)
    assert len(torch.unique(agile(f"agile-{count}").encrypt(pixel, stacks))) == values


# ---- masks


@pytest.mark.parametrize("name", ["default", "agile-4", "keystream"])
def test_the_mask_follows_from_the_key_alone(name: str) -> None:
    one = cipher(name)
    assert one.keyed_mask
    for image in (mni_slice(90, 47, 50), noise(1, 1, 9, 1)):
        bits = planes(one, image, image_keys(1))
        ciphertext = one.encrypt(image, bits)
        assert torch.equal(one.field(ciphertext, bits), one.field(noise(*image.shape, seed=5), bits))
        assert torch.equal(one.field(ciphertext, bits), ciphertext - image)  # uint8 wraps


@pytest.mark.parametrize("place", [(48, 48), (48, 49), (49, 48), (49, 49)])
def test_a_changed_bit_of_the_planes_changes_masks_of_every_phase_around_it(place: tuple[int, int]) -> None:
    key_bytes = noise(1, 1, 96, 96)
    changed = key_bytes.clone()
    changed[(0, 0, *place)] ^= 1
    touched = to_phases((NETWORK(changed) != NETWORK(key_bytes)).float()).sum((0, 2, 3))
    own = 2 * (place[0] % 2) + place[1] % 2
    others = [phase for half in HALVES if own not in half for phase in half]
    assert touched[own] >= 1
    assert all(touched[phase] > 20 for phase in others)


@pytest.mark.parametrize("name", ["default", "keystream"])
def test_damage_of_a_ciphertext_is_damage_of_the_same_pixels_alone(name: str) -> None:
    one, image = cipher(name), mni_slice(85, 96, 96)
    bits = planes(one, image, image_keys(1))
    ciphertext = one.encrypt(image, bits)
    damaged, _ = DAMAGES["salt_pepper_5pct"](ciphertext, torch.Generator().manual_seed(0))
    assert torch.equal(one.decrypt(damaged, bits) != image, damaged != ciphertext)
    assert torch.equal(one.decrypt(damaged, bits) - image, damaged - ciphertext)


@pytest.mark.parametrize("sigma", [2.0, 8.0])
def test_noise_is_restored_better_than_by_the_network_alone(sigma: float) -> None:
    one, image = agile(), mni_slice(85, 128, 128)
    bits = planes(one, image, image_keys(1))
    noisy, lost = GaussianNoise(sigma)(one.encrypt(image, bits), torch.Generator().manual_seed(0))
    found = one.decryption.averaged(one.decrypt(noisy, bits).float(), lost.float())
    network = (found.level.sigmoid() * 255).round()
    errors = [(each.float() - image).square().mean() for each in (network, one.restore(noisy, bits))]
    assert errors[1] < 0.98 * errors[0]


def test_keystream_suffers_the_same_as_agile_and_is_repaired_alike() -> None:
    """By construction: so a study of losses needs one of the two."""
    one, other, image = cipher("default"), cipher("keystream"), mni_slice(85, 64, 64)
    added = noise(*image.shape, seed=3) * (noise(*image.shape, seed=4) < 20)  # 8 % of the pixels
    restored = []
    for each in (one, other):
        bits = planes(each, image, image_keys(1))
        restored.append(each.restore(each.encrypt(image, bits) + added, bits))
    assert torch.equal(restored[0], restored[1])


# ---- uniformity


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_ciphertexts_of_a_constant_image_are_uniform(level: int) -> None:
    """Chi-square of 24 ciphertexts together, and how often one alone passes the 5 % point."""
    count = 24
    image = torch.full((count, 1, 96, 96), level, dtype=torch.uint8)
    ciphertext = agile().encrypt(image, planes(agile(), image, image_keys(count, seed=level)))
    values = chi_square(ciphertext)
    low, high = chi2.ppf([1e-4, 1 - 1e-4], 255 * count)
    assert low < values.sum().item() < high
    assert int((values > chi2.ppf(0.95, 255)).sum()) <= 6  # 1.2 expected; 7 or more once in 5,000
    # Entropy of n uniform pixels: 8 bits less (256 - 1) / (2 n ln 2), to first order (Miller 1955).
    expected = 8 - 255 / (2 * image[0].numel() * math.log(2))
    assert abs(entropy_bits(ciphertext).mean().item() - expected) < 0.002
    masks = (ciphertext - image).flatten(1).double()
    assert abs(torch.corrcoef(masks[:2])[0, 1].item()) < 0.05  # two nonces, two masks
