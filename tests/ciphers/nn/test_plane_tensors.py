"""Key planes on a device are those of numpy, packed; and their bits by themselves."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from encdl.ciphers.nn.plane_tensors import plane_tensor, unpack
from encdl.keys.planes import PlaneSpec, key_planes
from encdl.utils.errors import UsageError

SEEDS = [hashlib.sha256(bytes([index])).digest() for index in range(3)]
SPECS = [PlaneSpec(), PlaneSpec(count=3), PlaneSpec(expansion="periodic", period=4)]


@pytest.mark.filterwarnings("ignore::encdl.keys.planes.LeakyExpansionWarning")
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 8, 9)])
@pytest.mark.parametrize("spec", SPECS)
def test_packed_planes_of_the_keys(spec: PlaneSpec, shape: tuple[int, int, int]) -> None:
    found = plane_tensor(SEEDS, spec, shape)
    assert found.dtype == torch.uint8
    assert torch.equal(found, torch.from_numpy(key_planes(SEEDS, spec, *shape)))


@pytest.mark.parametrize("planes", range(1, 9))
def test_unpacked_bits_make_the_byte_again(planes: int) -> None:
    packed = plane_tensor(SEEDS, PlaneSpec(count=planes), (2, 5, 7))
    bits = unpack(packed, planes)
    assert bits.shape == (3, 2, planes, 5, 7)
    assert bits.dtype == torch.uint8
    wanted = np.unpackbits(packed.numpy()[..., None, :, :], axis=-3, bitorder="little")[..., :planes, :, :]
    assert np.array_equal(bits.numpy(), wanted)
    assert torch.equal(unpack(packed[0, 0], planes), bits[0, 0])


def test_what_cannot_be_unpacked() -> None:
    packed = plane_tensor(SEEDS, PlaneSpec(), (1, 4, 4))
    for tensor, planes in ((packed, 0), (packed, 9), (packed.float(), 8)):
        with pytest.raises(UsageError, match="1 to 8 planes"):
            unpack(tensor, planes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore::encdl.keys.planes.LeakyExpansionWarning")
@pytest.mark.parametrize("spec", SPECS)
def test_on_a_gpu(spec: PlaneSpec) -> None:
    found = plane_tensor(SEEDS, spec, (2, 33, 17), "cuda")
    assert found.device.type == "cuda"
    on_cpu = torch.from_numpy(key_planes(SEEDS, spec, 2, 33, 17))
    assert torch.equal(found.cpu(), on_cpu)
    assert torch.equal(unpack(found, spec.count).cpu(), unpack(on_cpu, spec.count))
    assert plane_tensor([], spec, (2, 33, 17), "cuda").shape == (0, 2, 33, 17)
    with pytest.raises(UsageError):
        plane_tensor(SEEDS, spec, (2, 0, 17), "cuda")
