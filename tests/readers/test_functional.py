"""Functional readers: W of ciphertext minus W of mask is W of the image, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from encdl.audit.functional import plan as plans
from encdl.ciphers import weights
from encdl.ciphers.reading_layer import add_mask, reading_mask
from encdl.keys import Key, PlaneSpec
from encdl.keys.functional_map import FunctionalMap, centred
from encdl.readers import FunctionalStem, PlainStem, Reader, create
from encdl.readers.functional import Form, IntegerMap
from encdl.training.tasks.key_planes import fresh_planes
from encdl.utils.errors import UsageError
from tests.reader_checkpoint import resnet
from tests.training.tasks.support import tiny_cipher

KEYS = [Key(bytes(32)).image_keys(bytes([number] * 16)) for number in range(2)]
SHAPES = [(1, 32, 32, 3, 8, 8), (3, 21, 30, 2, 7, 4), (1, 28, 28, 5, 28, 28), (2, 9, 40, 1, 1, 1), (1, 17, 17, 4, 6, 3)]
"""Channels, height, width, outputs, kernel, stride."""


@pytest.fixture(params=["highest", "high", "medium"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


def images(channels: int, height: int, width: int, top: int = 256) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, top, (2, channels, height, width), dtype=np.uint16))


def a_map(shape: tuple[int, ...], bits: int) -> IntegerMap:
    channels, height, width, outputs, kernel, stride = shape
    torch.manual_seed(0)
    return IntegerMap(channels, (height, width), outputs, kernel, stride, bits, spread=4.0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [16, 32])
def test_a_reading_layer_gives_w_of_the_image(shape: tuple[int, ...], bits: int, precision: str) -> None:
    learnt = a_map(shape, bits)
    frozen, image = learnt.frozen(), images(*shape[:3]).to(torch.uint8)
    mask = reading_mask(KEYS, shape[:3], bits)
    masked = add_mask(image.numpy(), mask)
    host, server = frozen.apply(masked), frozen.apply(mask)
    # The host may as well compute on its accelerator, and under autocast.
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(learnt.exact(torch.from_numpy(masked)).long(), torch.from_numpy(centred(host)))
        seen = learnt(image)
    wide = frozen if bits == 32 else FunctionalMap(frozen.weights, frozen.stride, frozen.size, 32)
    exact = torch.from_numpy(centred(wide.apply(image.numpy())))
    assert torch.equal(seen.double(), exact.double())
    assert np.array_equal(host - server, exact.numpy().astype(host.dtype))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["default", "agile", "keystream"])
def test_ciphertext_gives_w_of_the_image_modulo_256(name: str, shape: tuple[int, ...], precision: str) -> None:
    cipher = weights.load("default").cipher if name == "default" else tiny_cipher(name)
    image = images(*shape[:3]).to(torch.uint8)
    planes = fresh_planes(PlaneSpec(), image.shape, seed=0, rank=0, purpose="test", step=0)
    ciphertext = cipher.encrypt(image, planes)
    learnt = a_map(shape, 8)
    frozen = learnt.frozen()
    host, server = (frozen.apply(each.numpy()) for each in (ciphertext, cipher.field(ciphertext, planes)))
    assert np.array_equal(host - server, frozen.apply(image.numpy()))
    assert np.array_equal(host - server, learnt(image).detach().numpy().astype(np.int64) % 256)


@pytest.mark.parametrize("depth", [8, 12, 16])
def test_words_hold_deeper_images_too(depth: int) -> None:
    frozen, image = a_map((1, 40, 40, 2, 20, 20), 32).frozen(), images(1, 40, 40, 1 << depth).numpy()
    mask = reading_mask(KEYS, (1, 40, 40))
    found = centred(frozen.apply(add_mask(image, mask)) - frozen.apply(mask))
    rows = image.astype(np.int64).reshape(2, 2, 20, 2, 20).transpose(0, 1, 3, 2, 4).reshape(2, 4, 400)
    assert np.array_equal(
        found.reshape(2, 2, 4), frozen.weights.reshape(2, 400).astype(np.int64) @ rows.transpose(0, 2, 1)
    )


@pytest.mark.parametrize("form", ["layer", "ciphertext"])
@pytest.mark.parametrize("expand", [1, 4])
def test_a_stem_reads_numbers_as_it_reads_the_image(form: Form, expand: int) -> None:
    torch.manual_seed(0)
    stem = FunctionalStem(1, (20, 24), outputs=2, kernel=6, stride=4, form=form, width=8, expand=expand, adversary=0.1)
    reader = Reader(stem, resnet(8, 3)).eval()
    image = images(1, 20, 24).to(torch.uint8)
    bits = stem.map.bits
    mask = torch.from_numpy(np.random.default_rng(1).integers(0, 2**bits, image.shape).astype(f"u{bits // 8}"))
    masked = torch.from_numpy((image.numpy().astype(np.int64) + mask.numpy()) % 2**bits)
    numbers = stem.map.exact(masked) - stem.map.exact(mask)
    assert torch.equal(reader.backbone(stem.read(numbers)), reader(image))
    again = create(reader.config(), 3)
    again.load_state_dict(reader.state_dict())
    assert torch.equal(again.eval()(image), reader(image))
    assert isinstance(again.stem, FunctionalStem)
    assert again.stem.map.frozen().id == stem.map.frozen().id


class Counting(TorchDispatchMode):
    """Counts what a device computes: all but other views of the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.steps += not (call.is_view or "view" in str(call) or "empty" in str(call))
        return call(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["pneumoniamnist", "brain_tumor", "acdc"])
def test_a_host_takes_at_most_a_tenth_more_steps_than_plaintext(name: str) -> None:
    """On a GPU, which waits for the next step, that is the time; the networks of the studies, trained or not."""
    plan, size = plans.read(Path(f"experiments/functional-{name}.yaml"), {}), 28 if name == "pneumoniamnist" else 128
    chosen = dict(plan.settings[1])
    backbones = plan.backbone, chosen.pop("backbone", plan.backbone)
    stems = PlainStem(1, plan.width), FunctionalStem(1, (size, size), **chosen)
    plain, host = (plan._reader(*parts, 2).eval() for parts in zip(stems, backbones, strict=True))
    image, steps = torch.randint(0, 256, (2, 1, size, size)), []
    given = stems[1].map.exact(image)  # and what is kept between files is made here
    for compute in (
        lambda: plain(image.to(torch.uint8)),
        lambda: host.backbone(stems[1].of_centred(stems[1].map.exact(image, given), whole=True)),
    ):
        with torch.no_grad(), Counting() as counting:
            compute()
        steps.append(counting.steps)
    assert steps[1] <= 1.1 * steps[0]


def test_what_is_kept_follows_the_weights() -> None:
    learnt, other = (a_map((1, 8, 8, 2, 4, 4), 32).eval() for _ in range(2))
    image = images(1, 8, 8)
    for change in (learnt.latent.neg_, lambda: learnt.load_state_dict(other.state_dict())):
        before = learnt.exact(image)
        with torch.no_grad():
            change()
        assert not torch.equal(learnt.exact(image), before)
        assert np.array_equal(learnt.exact(image).numpy(), centred(learnt.frozen().apply(image.numpy())))


def test_the_adversary_learns_and_w_learns_against_it() -> None:
    torch.manual_seed(0)
    stem = FunctionalStem(1, (16, 16), outputs=1, kernel=4, stride=4, adversary=0.5)
    image = images(1, 16, 16).to(torch.uint8)
    torch.autograd.backward(stem.penalty(image))
    assert stem.decoder is not None
    gradients = {name: parameter.grad for name, parameter in stem.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[0] for name in gradients} == {"map", "decoder"}
    along = stem.map.latent.grad
    stem.zero_grad()
    stem.adversary = -1.0  # as if W helped the decoder
    torch.autograd.backward(stem.penalty(image))
    assert along is not None
    assert stem.map.latent.grad is not None
    assert torch.allclose(along, -0.5 * stem.map.latent.grad)


def test_noise_is_drawn_in_the_pixels_domain() -> None:
    torch.manual_seed(0)
    stem = FunctionalStem(1, (32, 32), outputs=2, kernel=4, stride=4, noise=20.0, adversary=0.1)
    image = images(1, 32, 32).to(torch.uint8)
    noise = stem.noisy(image) - image
    assert torch.equal(noise, noise.round())
    assert 19.0 < float(noise.std()) < 21.0
    assert not torch.equal(stem.seen(image), stem.seen(image))  # a draw for each file
    levels = stem.noisy(image)
    assert torch.equal(stem.of_levels(levels), stem.of_levels(levels))
    assert FunctionalStem(1, **stem.settings()).noise == 20.0
    # Numbers of a key server come with its noise: nothing is added to them.
    numbers = stem.eval().map.exact(levels.long() % 2**32)
    assert torch.equal(stem.read(numbers), stem.read(numbers))
    assert torch.equal(stem.of_numbers(numbers.float()), stem._convolved(stem.of_levels(levels)))
    with pytest.raises(UsageError, match="noise of a functional reader is from 0 to 255"):
        FunctionalStem(1, (8, 8), noise=-1.0)


def test_what_a_map_gives_away() -> None:
    found = a_map((1, 128, 128, 2, 12, 8), 32).frozen()
    assert (found.grid, found.numbers, found.given_bits) == ((16, 16), 512, 512 * 32)
    ids = {a_map((1, 128, 128, 2, 12, stride), bits).frozen().id for stride in (4, 8) for bits in (8, 32)}
    assert len(ids) == 4
    assert found.id in ids


@pytest.mark.parametrize(
    ("weights_of_map", "stride", "bits"),
    [
        (np.full((1, 1, 4, 4), 8, np.int8), 4, 32),
        (np.ones((1, 1, 4, 4), np.int16), 4, 32),
        (np.ones((1, 1, 4, 3), np.int8), 4, 32),
        (np.ones((1, 1, 4, 4), np.int8), 5, 32),
        (np.ones((1, 1, 4, 4), np.int8), 4, 24),
    ],
)
def test_what_is_no_map(weights_of_map: np.ndarray, stride: int, bits: int) -> None:
    with pytest.raises(UsageError):
        FunctionalMap(weights_of_map, stride, (8, 8), bits)


def test_images_of_another_size_are_refused() -> None:
    learnt = a_map(SHAPES[0], 32)
    for take in (learnt, learnt.exact, lambda image: learnt.frozen().apply(image.numpy())):
        with pytest.raises(UsageError, match="takes images of 1 x 32 x 32"):
            take(images(1, 32, 31))
