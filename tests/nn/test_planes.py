"""Key planes on a device are those that numpy spreads."""

from __future__ import annotations

import hashlib

import pytest
import torch

from encdl.errors import UsageError
from encdl.keys.maps import MAPS, byte_sequence
from encdl.keys.planes import PlaneSpec, key_planes
from encdl.nn.planes import plane_tensor, spread

SEEDS = [hashlib.sha256(bytes([index])).digest() for index in range(3)]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 5), (3, 8, 9)])
@pytest.mark.parametrize("planes", [1, 8, 9])
@pytest.mark.parametrize("name", tuple(MAPS))
def test_spread_bits_are_the_planes(name: str, planes: int, shape: tuple[int, int, int]) -> None:
    """What an accelerator does, on the CPU."""
    spec = PlaneSpec(map=name, planes=planes)
    wanted = torch.from_numpy(key_planes(SEEDS, spec, *shape))
    size = wanted.shape[1:]
    packed = torch.from_numpy(byte_sequence(name, SEEDS, -(-size.numel() // 8)))
    found = spread(packed, size)
    assert found.dtype == torch.uint8
    assert torch.equal(found, wanted)
    assert torch.equal(plane_tensor(SEEDS, spec, shape), wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore::encdl.keys.planes.LeakyExpansionWarning")
@pytest.mark.parametrize("spec", [PlaneSpec(), PlaneSpec(expansion="periodic", period=4)])
def test_on_a_gpu(spec: PlaneSpec) -> None:
    found = plane_tensor(SEEDS, spec, (2, 33, 17), "cuda")
    assert found.device.type == "cuda"
    assert torch.equal(found.cpu(), torch.from_numpy(key_planes(SEEDS, spec, 2, 33, 17)))
    assert plane_tensor([], spec, (2, 33, 17), "cuda").shape == (0, 2, 8, 33, 17)
    with pytest.raises(UsageError):
        plane_tensor(SEEDS, spec, (2, 0, 17), "cuda")
