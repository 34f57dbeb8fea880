"""The kernels for a GPU, on one or else in Triton's interpreter; `device_check` has the larger sizes."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

import pytest
import torch

from encdl.ciphers import batches, device
from encdl.ciphers.agile import AgileCipher
from encdl.ciphers.mask_network import MaskNetwork
from encdl.ciphers.nn.plane_tensors import plane_tensor
from encdl.ciphers.postprocess import interleave
from encdl.keys.planes import PlaneSpec, key_planes
from encdl.keys.sequences import byte_sequence
from encdl.utils.errors import UsageError

PLACE = "cuda" if device.available("cuda") else "cpu"
if PLACE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="Triton comes with PyTorch's builds for CUDA")
SEEDS = [bytes(range(at, at + 32)) for at in (3, 90)]


def noise(*shape: int) -> Any:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("count", [65, 4200])
@pytest.mark.parametrize("name", ["chacha20", "logistic", "chebyshev", "tent", "piecewise_linear"])
def test_sequences_are_those_of_the_cpu(name: str, count: int) -> None:
    from encdl.ciphers.device.keystream import byte_sequences, seed_words

    found = byte_sequences(name, seed_words(SEEDS, PLACE), count).cpu().numpy()
    assert found.tobytes() == byte_sequence(name, SEEDS, count).tobytes()


@pytest.mark.parametrize("shape", [(2, 1, 5, 7), (1, 1, 40, 33)])
def test_masks_are_those_of_the_float_layers(shape: tuple[int, ...]) -> None:
    from encdl.ciphers import device_mask_network

    keys = noise(*shape)
    with mock.patch.object(device_mask_network, "PLACES_AT_ONCE", 1):
        assert torch.equal(device_mask_network.masks(keys.to(PLACE)).cpu(), MaskNetwork()(keys))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 2, 6, 9), (2, 3, 33, 40)])
def test_the_order_is_that_of_the_cpu(shape: tuple[int, ...]) -> None:
    images, nonces = noise(*shape), [seed[:16] for seed in (SEEDS * 2)[: shape[0]]]
    file, lost = interleave.interleave(images, nonces), images > 99
    with mock.patch.object(device, "available", return_value=True):
        assert torch.equal(interleave.interleave(images.to(PLACE), nonces).cpu(), file)
        assert torch.equal(interleave.deinterleave(file.to(PLACE), nonces).cpu(), images)
        there = interleave.interleave(lost.to(PLACE), nonces)
        assert torch.equal(interleave.deinterleave(there, nonces).cpu(), lost)


def test_key_planes_of_fewer_bits() -> None:
    spec = PlaneSpec(map="chacha20", count=3)
    with mock.patch.object(device, "available", return_value=True):
        found = plane_tensor(SEEDS, spec, (2, 9, 7), PLACE).cpu()
        with pytest.raises(UsageError, match="32 bytes"):
            plane_tensor([b"short"], spec, (2, 9, 7), PLACE)
    assert torch.equal(found, torch.from_numpy(key_planes(SEEDS, spec, 2, 9, 7)))


def test_whole_batches_from_their_nonces() -> None:
    cipher, images, nonces = AgileCipher(width=4, blocks=0), noise(2, 1, 9, 8), noise(2, 16)
    file = batches.encrypt(cipher, images, SEEDS[0], nonces)
    assert torch.equal(batches.decrypt(cipher, file, SEEDS[0], nonces), images)
    with mock.patch.object(device, "available", return_value=True):
        found = batches.encrypt(cipher, images.to(PLACE), SEEDS[0], nonces.to(PLACE))
        assert torch.equal(found.cpu(), file)
        assert torch.equal(batches.decrypt(cipher, found, SEEDS[0], nonces.to(PLACE)).cpu(), images)
    for wrong in (nonces[:1], nonces.float()):
        with pytest.raises(UsageError, match="nonces"):
            batches.encrypt(cipher, images, SEEDS[0], wrong)
