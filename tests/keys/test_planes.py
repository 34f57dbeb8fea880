from __future__ import annotations

import itertools
import math
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encdl.keys.planes import (
    EXPANSIONS,
    LeakyExpansionWarning,
    PlaneSpec,
    WeakMapWarning,
    coprime_sides,
    key_bits,
    key_planes,
)
from encdl.keys.sequences import MAPS, byte_sequence
from encdl.utils.errors import UsageError

quiet = pytest.mark.filterwarnings("ignore::encdl.keys.planes.WeakPlanesWarning")
specs = st.one_of(
    st.builds(PlaneSpec, map=st.sampled_from(tuple(MAPS)), count=st.integers(1, 8)),
    st.builds(
        PlaneSpec,
        map=st.sampled_from(tuple(MAPS)),
        expansion=st.sampled_from(["coprime", "periodic"]),
        count=st.integers(1, 8),
        period=st.integers(2, 24),
    ),
)
sizes = st.integers(1, 21)


def subkeys(count: int) -> list[bytes]:
    return [sha256(f"planes {index}".encode()).digest() for index in range(count)]


@quiet
@given(specs, st.integers(1, 3), st.integers(1, 3), sizes, sizes)
@settings(max_examples=60, deadline=None)
def test_shape_values_and_batch(spec: PlaneSpec, batch: int, channels: int, height: int, width: int) -> None:
    planes = key_planes(subkeys(batch), spec, channels, height, width)
    assert planes.shape == (batch, channels, height, width)
    assert planes.dtype == np.uint8
    assert planes.flags.c_contiguous
    assert planes.max() < 1 << spec.count
    last = key_planes(subkeys(batch)[-1:], spec, channels, height, width)
    np.testing.assert_array_equal(planes[-1:], last)


def test_full_planes_are_the_bytes_of_the_sequence() -> None:
    data = byte_sequence("logistic+chacha20", subkeys(2), 2 * 3 * 7).reshape(2, 2, 3, 7)
    np.testing.assert_array_equal(key_planes(subkeys(2), PlaneSpec(), 2, 3, 7), data)
    for count in range(1, 8):
        planes = key_planes(subkeys(2), PlaneSpec(count=count), 2, 3, 7)
        np.testing.assert_array_equal(planes, data % 2**count)


@quiet
def test_periodic_planes_repeat_their_tile() -> None:
    spec = PlaneSpec(expansion="periodic", count=3, period=4)
    planes = key_planes(subkeys(1), spec, 2, 10, 9)
    tile = key_planes(subkeys(1), replace(spec, expansion="full", period=0), 2, 4, 4)
    for y, x in itertools.product(range(10), range(9)):
        np.testing.assert_array_equal(planes[..., y, x], tile[..., y % 4, x % 4])


@quiet
def test_coprime_planes_repeat_with_their_own_periods() -> None:
    spec = PlaneSpec(expansion="coprime", count=3, period=4)
    assert coprime_sides(3, 4) == [4, 3, 5]
    planes = key_planes(subkeys(1), spec, 2, 13, 11)[0]
    stream = byte_sequence(spec.map, subkeys(1), 2 * (16 + 9 + 25))[0]
    for channel, drawn in enumerate(stream.reshape(2, 50)):
        for plane, tile in enumerate(np.split(drawn, [16, 25])):
            side = math.isqrt(tile.size)
            for y, x in itertools.product(range(13), range(11)):
                wanted = tile.reshape(side, side)[y % side, x % side]
                assert planes[channel, y, x] >> plane & 1 == wanted >> plane & 1


@given(st.integers(1, 8), st.integers(2, 4096))
@settings(max_examples=30, deadline=None)
def test_coprime_sides_are_pairwise_coprime(planes: int, period: int) -> None:
    sides = coprime_sides(planes, period)
    assert len(sides) == planes
    assert min(sides) >= 2
    assert sides[0] == period
    assert all(math.gcd(a, b) == 1 for a, b in itertools.combinations(sides, 2))
    distances = [abs(side - period) for side in sides]
    assert distances == sorted(distances)


def test_planes_that_repeat_warn() -> None:
    for expansion in ("periodic", "coprime"):
        with pytest.warns(LeakyExpansionWarning, match=r"8x8: one ciphertext gives away the image.*'full'"):
            key_planes(subkeys(1), PlaneSpec(expansion=expansion, period=8), 1, 16, 16)
    key_planes(subkeys(1), PlaneSpec(), 1, 16, 16)


def test_a_chaotic_map_alone_warns() -> None:
    for name, source in MAPS.items():
        if name in {"logistic", "chebyshev", "piecewise_linear", "tent"}:
            bits = source.attack_bits
            with pytest.warns(WeakMapWarning, match=rf"'{name}' alone is worth {bits} bits.*guess-and-determine"):
                key_planes(subkeys(1), PlaneSpec(map=name), 1, 16, 16)
        else:
            assert source.attack_bits == 256
            key_planes(subkeys(1), PlaneSpec(map=name), 1, 16, 16)


@pytest.mark.parametrize(
    ("spec", "shape", "bits"),
    [
        (PlaneSpec(), (1, 256, 256), 256),
        (PlaneSpec(), (1, 2, 2), 32),
        (PlaneSpec(count=1), (3, 5, 5), 75),
        (PlaneSpec(map="chacha20"), (1, 256, 256), 256),
        (PlaneSpec(map="logistic"), (1, 256, 256), 64),
        (PlaneSpec(map="tent"), (1, 256, 256), 94),
        (PlaneSpec(map="tent"), (1, 2, 2), 32),
        (PlaneSpec(expansion="periodic", count=2, period=4), (1, 64, 64), 32),
        (PlaneSpec(expansion="periodic", count=2, period=4), (1, 3, 64), 24),
        (PlaneSpec(expansion="periodic", count=8, period=32), (1, 64, 64), 256),
        (PlaneSpec(expansion="coprime", count=3, period=4), (1, 64, 64), 50),
        (PlaneSpec(expansion="coprime", count=3, period=4), (1, 64, 4), 16 + 9 + 20),
        (PlaneSpec(expansion="coprime", period=32), (1, 64, 64), 256),
    ],
)
def test_key_bits(spec: PlaneSpec, shape: tuple[int, int, int], bits: int) -> None:
    assert key_bits(spec, *shape) == bits


@given(specs)
def test_spec_round_trip(spec: PlaneSpec) -> None:
    assert PlaneSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"map": "lorenz"}, "unknown map"),
        ({"expansion": "spiral"}, "unknown expansion 'spiral': choose one of full, coprime, periodic"),
        ({"count": 0}, "planes must be a whole number from 1 to 8, not 0"),
        ({"count": 9}, "planes"),
        ({"count": True}, "planes"),
        ({"count": 8.0}, "planes"),
        ({"period": 8}, "repeats nothing"),
        ({"period": -1}, "repeats nothing"),
        ({"expansion": "periodic"}, "period of expansion 'periodic' must be a whole number from 1 to 4096"),
        ({"expansion": "periodic", "period": 4097}, "period"),
        ({"expansion": "coprime", "period": 1}, "from 2 to 4096"),
    ],
)
def test_bad_specs(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PlaneSpec(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"map": "chacha20", "expansion": "full", "planes": 8},
        PlaneSpec().to_dict() | {"seed": 1},
        PlaneSpec().to_dict() | {"planes": "8"},
        PlaneSpec().to_dict() | {"planes": 8.0},
        PlaneSpec().to_dict() | {"planes": True},
        PlaneSpec().to_dict() | {"map": ["logistic"]},
        PlaneSpec().to_dict() | {"planes": 10**30},
        [],
        None,
    ],
)
def test_untrusted_dicts(values: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        PlaneSpec.from_dict(values)


@pytest.mark.parametrize("shape", [(0, 4, 4), (1, 0, 4), (1, 4, -1)])
def test_bad_sizes(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="sizes start at 1"):
        key_planes(subkeys(1), PlaneSpec(), *shape)


def test_registry_names() -> None:
    assert {name: expansion.name for name, expansion in EXPANSIONS.items()} == {n: n for n in EXPANSIONS}


def test_batch_of_none() -> None:
    assert key_planes([], PlaneSpec(), 1, 4, 4).shape == (0, 1, 4, 4)
