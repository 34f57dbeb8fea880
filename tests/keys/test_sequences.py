from __future__ import annotations

import itertools
import struct
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encdl.keys import sequences
from encdl.keys.sequences import (
    LANES,
    MAPS,
    REVISION,
    SEED_WORDS,
    WARM_UP,
    ChaoticSequence,
    MaskedSequence,
    _iteration,
    byte_sequence,
    integer_sequence,
    lane_seeds,
)
from encdl.utils.errors import UsageError
from tests.keys import reference
from tests.ways import take

CHAOTIC = tuple(reference.REFERENCE)
every_map = pytest.mark.parametrize("name", tuple(MAPS))
every_chaotic_map = pytest.mark.parametrize("name", CHAOTIC)
word = st.integers(0, reference.WORD - 1)


def seeds(count: int, label: str = "test") -> list[bytes]:
    return [sha256(f"{label} {index}".encode()).digest() for index in range(count)]


def bits(values: np.ndarray) -> np.ndarray:
    return np.unpackbits(np.ascontiguousarray(values).view(np.uint8), axis=-1)


@pytest.fixture(params=["compiled", "compiled for AVX2", "compiled without vectors", "numpy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the lanes are iterated; a processor without such vectors takes the widest that it has."""
    widest = {"compiled for AVX2": 1, "compiled without vectors": 0}.get(request.param, 2)
    monkeypatch.setattr(sequences, "_VECTORS", widest)
    return take(request.param.split()[0], "encdl_maps_revision", REVISION, monkeypatch)


@every_chaotic_map
def test_sequence_matches_the_reference(name: str, way: str) -> None:
    (seed,) = seeds(1)
    steps = 6
    words = integer_sequence(name, [seed], steps * LANES * 2).astype(np.uint64).reshape(steps, LANES, 2)
    outputs = words[..., 0] | words[..., 1] << np.uint64(32)
    for lane in (0, 1, 255, LANES - 1):
        expected = list(itertools.islice(reference.lane_outputs(name, seed, lane), steps))
        assert outputs[:, lane].tolist() == expected
    assert (LANES, WARM_UP) == (reference.LANES, reference.WARM_UP)


EDGES = tuple((edge + off) % reference.WORD for edge in (0, 1 << 32, 1 << 62, 1 << 63) for off in (-1, 0, 1))


@every_chaotic_map
def test_states_at_every_edge(name: str, way: str) -> None:
    """Squares, slopes and break points at the ends of their ranges, in a number of lanes that no vector divides."""
    one = MAPS[name]
    assert isinstance(one, ChaoticSequence)
    draw = np.random.default_rng(0)
    lanes = draw.choice(np.array(EDGES, dtype=np.uint64), (4 + one.unit_map.parameters, 509))
    lanes[3] |= np.uint64(1)
    out = np.empty((5, 509), dtype=np.uint64)
    iterate = _iteration(one.unit_map, lanes.copy())
    iterate(out[:3])
    iterate(out[3:])
    f = reference.REFERENCE[name]
    for lane in range(0, 509, 7):
        x, y, w, c, *parameter = (int(value) for value in lanes[:, lane])
        state = (x, y, w)
        for step in range(5):
            state = reference.step(f, state, c, *(parameter or [0]))
            assert out[step, lane] == reference.output(state)


@every_chaotic_map
def test_a_lane_seeds_by_itself(name: str) -> None:
    (seed,) = seeds(1)
    one = MAPS[name]
    assert isinstance(one, ChaoticSequence)
    drawn = lane_seeds(one.unit_map, seed, LANES)
    nonce = (b"v2 " + name.encode() + bytes(12))[:12]
    for lane in (0, 77, LANES - 1):
        words = list(struct.unpack(f"<{SEED_WORDS}Q", reference.chacha20_block(seed, nonce, lane)))
        words[3] |= 1
        assert drawn[:, lane].tolist() == words[: len(drawn)]
    np.testing.assert_array_equal(lane_seeds(one.unit_map, seed, 3), drawn[:, :3])


@every_chaotic_map
def test_both_together_are_the_xor_of_two_sub_keys(name: str, way: str) -> None:
    (seed,) = seeds(1)
    both = f"{name}+chacha20"
    chaotic, conservative = (reference.subkey(seed, both, part) for part in ("chaotic", "chacha20"))
    for count in (5, 4099, 140_001):  # a row cut short, one over a row, chunks and a rest
        chaos = byte_sequence(name, [chaotic], count)
        stream = byte_sequence("chacha20", [conservative], count)
        np.testing.assert_array_equal(byte_sequence(both, [seed], count), chaos ^ stream)
    one = MAPS[both]
    assert isinstance(one, MaskedSequence)
    assert one.subkeys(seed) == (chaotic, conservative)
    assert reference.chacha20(conservative, 150) == stream[0, :150].tobytes()


def test_what_each_sequence_is_worth() -> None:
    bits = {name: source.attack_bits for name, source in MAPS.items()}
    alone = {"logistic": 64, "chebyshev": 64, "piecewise_linear": 94, "tent": 94}
    assert {name: value for name, value in bits.items() if value != 256} == alone
    assert next(iter(MAPS)) == "logistic+chacha20"


@every_chaotic_map
@given(state=st.tuples(word, word, word), c=word, parameter=word)
@settings(max_examples=50)
def test_a_step_can_be_undone(name: str, state: tuple[int, int, int], c: int, parameter: int) -> None:
    f = reference.REFERENCE[name]
    forth = reference.step(f, state, c | 1, parameter)
    assert reference.step_back(f, forth, c | 1, parameter) == state


def test_chacha20_is_the_standard_keystream() -> None:
    """RFC 8439, appendix A.1, test vectors 1 and 2: key, nonce and counter zero, then counter one."""
    stream = byte_sequence("chacha20", [bytes(32)], 80)[0].tobytes()
    assert stream[:16].hex() == "76b8e0ada0f13d90405d6ae55386bd28"
    assert stream[64:80].hex() == "9f07e7be5551387a98ba977c732d080d"


@every_map
@given(short=st.integers(0, 3000), longer=st.integers(0, 3000))
@settings(max_examples=15, deadline=None)
def test_a_prefix_is_the_shorter_sequence(name: str, short: int, longer: int) -> None:
    whole = integer_sequence(name, seeds(2), short + longer)
    assert whole.dtype == np.uint32
    assert whole.shape == (2, short + longer)
    np.testing.assert_array_equal(whole[:, :short], integer_sequence(name, seeds(2), short))


@every_map
def test_rows_do_not_depend_on_the_batch(name: str) -> None:
    many = seeds(19)
    whole = integer_sequence(name, many, 1500)
    for row in (0, 7, 8, 18):
        np.testing.assert_array_equal(whole[row], integer_sequence(name, [many[row]], 1500)[0])
    np.testing.assert_array_equal(whole[::-1], integer_sequence(name, many[::-1], 1500))


@every_map
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 4097])
def test_bytes_are_the_words_low_byte_first(name: str, count: int) -> None:
    data = byte_sequence(name, seeds(2), count)
    assert data.dtype == np.uint8
    assert data.shape == (2, count)
    words = integer_sequence(name, seeds(2), 2048)
    for row in range(2):
        assert data[row].tobytes() == b"".join(int(w).to_bytes(4, "little") for w in words[row])[:count]


@every_map
def test_no_seeds_and_no_integers(name: str) -> None:
    assert integer_sequence(name, [], 7).shape == (0, 7)
    assert byte_sequence(name, [], 7).shape == (0, 7)
    assert integer_sequence(name, seeds(3), 0).shape == (3, 0)


def test_errors() -> None:
    with pytest.raises(UsageError, match="unknown map 'lorenz': choose chacha20, or one of logistic, chebyshev"):
        integer_sequence("lorenz", seeds(1), 1)
    with pytest.raises(UsageError, match="32 bytes"):
        integer_sequence("logistic", [b"short"], 1)
    with pytest.raises(UsageError, match="0 or more"):
        integer_sequence("logistic", seeds(1), -1)
    with pytest.raises(UsageError, match="0 or more"):
        byte_sequence("logistic", seeds(1), -5)


def test_maps_differ_under_one_seed() -> None:
    firsts = {integer_sequence(name, seeds(1), 4).tobytes() for name in MAPS}
    assert len(firsts) == len(MAPS)


@every_map
def test_bytes_are_uniform(name: str) -> None:
    """Chi-square with 255 degrees of freedom: 5 standard deviations either side, for each byte of a word."""
    data = byte_sequence(name, seeds(4), 1 << 18).reshape(-1, 8)
    for place in range(8):
        counts = np.bincount(data[:, place], minlength=256)
        expected = len(data) / 256
        assert abs(((counts - expected) ** 2 / expected).sum() - 255) < 5 * np.sqrt(2 * 255)


def test_output_hides_the_arcsine_law() -> None:
    """A bare logistic orbit spends 20 % of its steps in the outer 5 % of the interval; the output, 5 %."""
    words = integer_sequence("logistic", seeds(4), 1 << 16)
    outer = np.mean((words < 0.025 * 2**32) | (words > 0.975 * 2**32))
    assert abs(outer - 0.05) < 5 * np.sqrt(0.05 * 0.95 / words.size)


@every_map
def test_related_seeds_share_nothing(name: str) -> None:
    """Seeds one bit apart, and the first words after the short warm-up: half of all bits differ."""
    base = bytearray(32)
    flipped = []
    for bit in range(256):
        seed = bytearray(base)
        seed[bit // 8] ^= 1 << bit % 8
        flipped.append(bytes(seed))
    origin, others = integer_sequence(name, [bytes(base)], 64), integer_sequence(name, flipped, 64)
    differing = bits(origin ^ others)
    sigma = 0.5 / np.sqrt(differing.size)
    assert abs(differing.mean() - 0.5) < 5 * sigma
    assert np.abs(differing.mean(axis=0) - 0.5).max() < 6 * 0.5 / np.sqrt(len(flipped))
    assert len({row.tobytes() for row in others}) == 256


@every_chaotic_map
def test_lanes_and_steps_are_uncorrelated(name: str) -> None:
    steps = 128
    words = integer_sequence(name, seeds(1), steps * LANES * 2).view(np.uint64).reshape(steps, LANES)
    assert np.unique(words).size == words.size
    for left, right in ((words[1:], words[:-1]), (words[2:], words[:-2]), (words[:, 1:], words[:, :-1])):
        agree = bits(~(left ^ right)).mean()
        assert abs(agree - 0.5) < 5 * 0.5 / np.sqrt(left.size * 64)
