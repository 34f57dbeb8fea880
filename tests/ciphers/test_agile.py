"""What holds for the agile cipher alone: exact sums, uniform ciphertexts, masks, and what leaks where."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from torch import Tensor, nn

from encdl import ciphers
from encdl.attacks.tile import score, tile_attack
from encdl.ciphers import AgileCipher, Cipher, agile_bytes
from encdl.ciphers.agile import MAX_PLANES, MAX_WIDTH
from encdl.ciphers.agile_networks import KEY_LEVEL
from encdl.keys.planes import LeakyExpansionWarning
from encdl.metrics.quality import content_activity
from encdl.metrics.statistics import chi_square, entropy_bits
from encdl.nn.integer import EXACT_LIMIT, INPUT_LIMIT, WEIGHT_LIMIT, IntegerConv2d, IntegerDilatedStage
from encdl.nn.phases import from_phases, to_phases
from tests.ciphers.support import EXACT, cipher, image_keys, noise, planes
from tests.mni import mni_slice

DEEP = tuple(name for name in EXACT if cipher(name).planes >= 8)
"""Ciphers with eight planes or more: perfect secrecy holds for these."""


def agile(name: str) -> AgileCipher:
    one = cipher(name)
    assert isinstance(one, AgileCipher)
    return one


def worst(planes_: int, width: int) -> AgileCipher:
    """The largest sums that weights can make: every weight 7 or -7, every bias 127."""
    one = AgileCipher(planes_, width, width, restorer_width=4, restorer_blocks=0)
    generator = torch.Generator().manual_seed(0)
    for layer in one.modules():
        if isinstance(layer, IntegerConv2d):
            signs = torch.randint(0, 2, layer.weight.shape, generator=generator) * 2 - 1
            layer.weight.data = signs * 1e9
            layer.bias.data.fill_(1e9)
    return one.eval().requires_grad_(False)


# ---- every sum is exact


@dataclass(frozen=True)
class Bound:
    """What a convolution may be given, from the definition of the cipher, not from a run."""

    layer: IntegerConv2d
    inputs: int


def bounds(one: AgileCipher) -> dict[str, Bound]:
    """The largest input of every integer convolution, by name."""
    stage = -IntegerDilatedStage.LOW
    features = 32  # the circular features; the key bits beside them are smaller
    assert features >= KEY_LEVEL
    by_prefix = {
        "key_field.first": 1,
        "key_field.second": stage,
        "key_field.out": stage,
        "coupling.first": features,
        "coupling.second": stage,
        "coupling.out": stage,
    }
    layers = {name: layer for name, layer in one.named_modules() if isinstance(layer, IntegerConv2d)}
    found = {
        name: Bound(layer, limit)
        for name, layer in layers.items()
        for prefix, limit in by_prefix.items()
        if name.startswith(prefix)
    }
    assert found.keys() == layers.keys()
    assert len(found) == 4 * 4 + 2
    return found


@pytest.mark.parametrize("name", ["default", "agile-1", "agile-8", "agile-9", "worst", "worst of 32 planes"])
def test_every_sum_is_exact_in_float32_and_tf32(name: str) -> None:
    made: dict[str, Callable[[], AgileCipher]] = {
        "worst": lambda: worst(8, 6),
        "worst of 32 planes": lambda: worst(MAX_PLANES, 16),
    }
    one = made[name]() if name in made else agile(name)
    for place, bound in bounds(one).items():
        assert bound.inputs < INPUT_LIMIT, place
        weight, bias = bound.layer.integer_weight().double(), bound.layer.integer_bias().double()
        largest = float((weight.abs().sum((1, 2, 3)) * bound.inputs + bias.abs()).max())
        assert largest == bound.layer.worst_sum(bound.inputs), place
        # What is added afterwards, a key byte, an image byte and a mask, must not pass the limit either.
        assert largest + 3 * 255 < EXACT_LIMIT, place
        assert float(weight.abs().max()) <= WEIGHT_LIMIT


def test_the_widest_cipher_allowed_is_exact_too() -> None:
    fan_in = {"first of the key field": (3 * MAX_PLANES, 1), "hidden": (4 * MAX_WIDTH, 64)}
    for place, (channels, limit) in fan_in.items():
        assert channels * 9 * WEIGHT_LIMIT * limit + 127 + 3 * 255 < EXACT_LIMIT, place


@pytest.mark.parametrize("name", ["default", "worst"])
def test_no_input_of_a_run_passes_its_bound(name: str) -> None:
    """The bounds above are read off the definition; here they are watched in a run."""
    one = worst(8, 6) if name == "worst" else agile(name)
    seen: dict[str, float] = {}
    sums: dict[str, float] = {}

    def watch(place: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            assert inputs[0].dtype == output.dtype == torch.float32
            assert torch.equal(inputs[0], inputs[0].round())
            assert torch.equal(output, output.round())
            seen[place] = max(seen.get(place, 0.0), inputs[0].abs().max().item())
            sums[place] = max(sums.get(place, 0.0), output.abs().max().item())

        return hook

    found = bounds(one)
    with ExitStack() as stack:
        for place, bound in found.items():
            stack.callback(bound.layer.register_forward_hook(watch(place)).remove)
        for image in (noise(2, 1, 64, 64), torch.full((2, 1, 64, 64), 255, dtype=torch.uint8)):
            bits = planes(one, image, image_keys(2))
            for stacks in (bits, torch.zeros_like(bits), torch.ones_like(bits)):
                ciphertext, _ = one(image.float(), stacks[:, 0].float())
                assert torch.equal(ciphertext.to(torch.uint8), one.encrypt(image, stacks))
                assert torch.equal(one.decrypt(one.encrypt(image, stacks), stacks), image)
    for place, bound in found.items():
        assert seen[place] <= bound.inputs, place
        assert sums[place] <= bound.layer.worst_sum(bound.inputs), place


# ---- bytes give what floats give


@pytest.mark.skipif(not agile_bytes.available(), reason="this processor has no fast 8-bit convolution")
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*EXACT, "worst", "worst of 32 planes"]),
    st.integers(0, 2**32),
    st.integers(1, 3),
    st.integers(1, 50),
    st.integers(1, 50),
)
def test_bytes_give_what_floats_give(name: str, seed: int, batch: int, height: int, width: int) -> None:
    made = {"worst": lambda: worst(8, 6), "worst of 32 planes": lambda: worst(MAX_PLANES, 16)}
    one = made[name]() if name in made else agile(name)
    image = noise(batch, 1, height, width, seed=seed)
    bits = noise(batch, one.planes, height, width, seed=seed + 1) % 2
    on_bytes = one.encrypt(image, bits[:, None]), one.field(image, bits[:, None])
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(agile_bytes, "available", lambda: False)
        on_floats = one.encrypt(image, bits[:, None]), one.field(image, bits[:, None])
        assert torch.equal(one.decrypt(on_bytes[0], bits[:, None]), image)
    assert torch.equal(on_bytes[0], on_floats[0])
    assert torch.equal(on_bytes[1], on_floats[1])
    assert torch.equal(one.decrypt(on_floats[0], bits[:, None]), image)


# ---- perfect secrecy: from every picture to every ciphertext leads exactly one stack of eight planes


def bits_of(key_bytes: Tensor) -> Tensor:
    """(N, 1, H, W) bytes as floats to the eight planes that spell them, (N, 8, H, W)."""
    return torch.cat([(key_bytes / (1 << bit)).floor() % 2 for bit in range(8)], dim=1)


def solve(one: AgileCipher, image: Tensor, target: Tensor, extra: Tensor) -> Tensor:
    """The planes that take `image` to `target` (both (N, 1, H, W) bytes), given the planes past the eighth."""
    height, width = image.shape[-2:]
    x, c = to_phases(image.float()), to_phases(target.float())
    m0 = (c[:, :1] - x[:, :1]) % 256
    key_bytes = (c[:, 1:] - x[:, 1:] - one.coupling(c[:, :1], m0)) % 256
    others = from_phases(torch.cat([torch.zeros_like(m0), key_bytes], dim=1), height, width)
    stack = torch.cat([bits_of(others), extra.float()], dim=1)
    phases = to_phases(stack)
    signs = torch.cat([phases[:, phase::4] for phase in (1, 2, 3)], dim=1) * 2 - 1
    first = (m0 - one.key_field(signs)) % 256
    whole = from_phases(torch.cat([first, to_phases(others)[:, 1:]], dim=1), height, width)
    return torch.cat([bits_of(whole), extra.float()], dim=1).to(torch.uint8).unsqueeze(1)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(DEEP), st.integers(0, 2**32), st.integers(1, 2), st.integers(1, 40), st.integers(1, 40)
)
def test_a_stack_of_planes_leads_from_any_picture_to_any_ciphertext(
    name: str, seed: int, batch: int, height: int, width: int
) -> None:
    one = agile(name)
    image, target = noise(2, batch, 1, height, width, seed=seed)
    extra = noise(batch, one.planes - 8, height, width, seed=seed + 1) % 2
    assert torch.equal(one.encrypt(image, solve(one, image, target, extra)), target)


@pytest.mark.parametrize("name", DEEP)
def test_the_stack_is_the_only_one(name: str) -> None:
    one, image = agile(name), mni_slice(90, 61, 64)
    bits = planes(one, image, image_keys(1))
    assert torch.equal(solve(one, image, one.encrypt(image, bits), bits[:, 0, 8:]), bits)


def test_a_brain_has_a_stack_that_makes_it_black() -> None:
    one, image = agile("default"), mni_slice(90)
    black = torch.zeros_like(image)
    stack = solve(one, image, black, image[:, :0])
    assert torch.equal(one.encrypt(image, stack), black)
    assert torch.equal(one.decrypt(black, stack), image)


@pytest.mark.parametrize("name", ["default", "agile-8"])
def test_two_pixels_under_all_65536_stacks_give_all_ciphertexts(name: str) -> None:
    """Nothing is solved here: all keys are tried on two pixels."""
    everything = torch.arange(1 << 16)
    stacks = torch.stack([(everything >> bit) & 1 for bit in range(16)], dim=1)
    stacks = stacks.view(-1, 1, 8, 1, 2).to(torch.uint8)
    image = noise(1, 1, 1, 2)
    ciphertext = agile(name).encrypt(image.expand(1 << 16, -1, -1, -1), stacks).flatten(1).int()
    assert len(torch.unique(ciphertext[:, 0] * 256 + ciphertext[:, 1])) == 1 << 16


def test_fewer_planes_than_eight_cannot_give_all_ciphertexts() -> None:
    """Why the default is eight: four planes leave 16 values of the mask a pixel."""
    everything = torch.arange(1 << 4)
    stacks = torch.stack([(everything >> bit) & 1 for bit in range(4)], dim=1).view(-1, 1, 4, 1, 1)
    pixel = torch.full((16, 1, 1, 1), 99, dtype=torch.uint8)
    assert len(torch.unique(agile("agile-4").encrypt(pixel, stacks.to(torch.uint8)))) == 16


# ---- masks


@pytest.mark.parametrize("name", EXACT)
def test_the_mask_follows_from_ciphertext_and_key(name: str) -> None:
    one = cipher(name)
    for image in (mni_slice(90, 47, 50), noise(1, 1, 9, 1)):
        bits = planes(one, image, image_keys(1))
        ciphertext = one.encrypt(image, bits)
        field = one.field(ciphertext, bits)
        assert torch.equal(field, ciphertext - image)  # uint8 wraps
        assert torch.equal(one.decrypt(ciphertext, bits), ciphertext - field)


def mask(one: Cipher, image: Tensor, bits: Tensor) -> Tensor:
    return one.encrypt(image, bits) - image


@pytest.mark.parametrize("seed", range(3))
def test_unrelated_pictures_have_unrelated_masks(seed: int) -> None:
    """Content activity as `encdl evaluate` has it: a slice and one of another height, turned by half a turn."""
    one, image = cipher("default"), mni_slice(70)
    bits = planes(one, image, image_keys(1, seed=seed))
    for other in (mni_slice(71).flip(-1, -2), mni_slice(110)):
        assert content_activity(mask(one, image, bits), mask(one, other, bits)).item() >= 0.5
    assert content_activity(mask(one, image, bits), mask(one, image.clone(), bits)).item() == 0


def test_a_changed_pixel_changes_the_masks_around_it() -> None:
    one, image = cipher("default"), mni_slice(85, 128, 128)
    bits = planes(one, image, image_keys(1))
    before = mask(one, image, bits)
    changed = image.clone()
    changed[0, 0, 64, 64] ^= 4
    touched = mask(one, changed, bits) != before
    assert int(touched.sum()) > 1000
    phases = to_phases(touched.float())
    assert not bool(phases[:, 0].any())  # phase 0 is masked by the key alone
    assert all(bool(phases[:, phase].any()) for phase in (1, 2, 3))
    changed[0, 0, 64, 64] = image[0, 0, 64, 64] ^ 128  # a large change spreads farther
    assert int((mask(one, changed, bits) != before).sum()) > int(touched.sum())


@pytest.mark.parametrize("place", [(64, 65), (65, 64), (65, 65)])
def test_a_changed_pixel_of_another_phase_changes_itself_alone(place: tuple[int, int]) -> None:
    """Known, and why the post-processing and the synthetic nonce exist."""
    one, image = cipher("default"), mni_slice(85, 128, 128)
    bits = planes(one, image, image_keys(1))
    changed = image.clone()
    changed[(0, 0, *place)] ^= 1
    difference = one.encrypt(changed, bits) != one.encrypt(image, bits)
    assert difference.nonzero().tolist() == [[0, 0, *place]]


def test_a_changed_bit_of_the_planes_changes_the_ciphertext_around_it() -> None:
    one, image = cipher("default"), mni_slice(85, 96, 96)
    bits = planes(one, image, image_keys(1))
    before = one.encrypt(image, bits)
    for row, column, least in ((48, 48, 100), (48, 49, 20), (49, 48, 20), (49, 49, 20)):
        changed = bits.clone()
        changed[0, 0, 0, row, column] ^= 1
        assert int((one.encrypt(image, changed) != before).sum()) > least


# ---- the tile attack


def enciphered(image: Tensor, seed: int, expansion: str, period: int) -> Tensor:
    one = cipher("default")
    return one.encrypt(image, planes(one, image, image_keys(1, seed=seed), expansion, period))[0]


def phase_0(picture: Tensor) -> Tensor:
    """What is masked by the key alone: who knows the cipher attacks this quarter of the pixels."""
    return picture[..., ::2, ::2].contiguous()


@pytest.mark.parametrize("seed", range(5))
def test_one_ciphertext_with_full_planes_gives_nothing_away(seed: int) -> None:
    image = mni_slice(70 + 10 * seed)
    ciphertext = enciphered(image, seed, "full", 0)
    for part, plain in ((ciphertext, image[0]), (phase_0(ciphertext), phase_0(image[0]))):
        guess = tile_attack(part)
        assert guess.confidence < 5
        assert not score(guess, plain).leaks


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("period", [16, 21])
def test_one_ciphertext_with_periodic_planes_shows_the_brain(seed: int, period: int) -> None:
    image = mni_slice(70 + 10 * seed, 256, 256)
    with pytest.warns(LeakyExpansionWarning, match="one ciphertext gives away"):
        ciphertext = enciphered(image, seed, "periodic", period)
    guess = tile_attack(ciphertext, range(2, 65))
    assert guess.confidence > 100
    assert guess.period == math.lcm(period, 2)  # the network works on 2x2 blocks
    assert score(guess, image[0]).leaks
    guess = tile_attack(phase_0(ciphertext), range(2, 65))
    plain = phase_0(image[0])
    assert score(guess, plain).correlation > 0.4
    # At the edge the field's padding breaks the period; inside, the attacker holds the picture.
    inside = torch.stack([x[0, 20:-20, 20:-20].flatten() for x in (guess.estimate, plain)]).double()
    assert torch.corrcoef(inside)[0, 1].item() > 0.85


# ---- uniformity


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_ciphertexts_of_a_constant_picture_are_uniform(level: int) -> None:
    """Chi-square of 24 ciphertexts together, and how often one alone passes the 5 % point."""
    count = 24
    image = torch.full((count, 1, 96, 96), level, dtype=torch.uint8)
    one = cipher("default")
    ciphertext = one.encrypt(image, planes(one, image, image_keys(count, seed=level)))
    values = chi_square(ciphertext)
    low, high = chi2.ppf([1e-4, 1 - 1e-4], 255 * count)
    assert low < values.sum().item() < high
    assert int((values > chi2.ppf(0.95, 255)).sum()) <= 6  # 1.2 expected; 7 or more once in 5,000
    # Entropy of n uniform pixels: 8 bits less (256 - 1) / (2 n ln 2), to first order (Miller 1955).
    expected = 8 - 255 / (2 * image[0].numel() * math.log(2))
    assert abs(entropy_bits(ciphertext).mean().item() - expected) < 0.002
    masks = (ciphertext - image).flatten(1).double()
    assert abs(torch.corrcoef(masks[:2])[0, 1].item()) < 0.05  # two nonces, two masks


def test_uniformity_needs_no_training() -> None:
    """All weights zero, or as large as they get: the planes are enough (the property above, seen from outside)."""
    image = torch.zeros(8, 1, 96, 96, dtype=torch.uint8)
    nothing = ciphers.create("agile", {"restorer_width": 4, "restorer_blocks": 0}).eval()
    for parameter in nothing.parameters():
        parameter.data.zero_()
    for one in (nothing, worst(8, 6)):
        values = chi_square(one.encrypt(image, planes(one, image, image_keys(8))))
        assert values.sum().item() < chi2.ppf(1 - 1e-4, 255 * 8)
