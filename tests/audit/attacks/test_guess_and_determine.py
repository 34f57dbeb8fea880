"""Guess-and-determine of lanes: it opens a chaotic map alone at few bits, and nothing that ChaCha20 takes part in."""

from __future__ import annotations

import random
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
import torch

from encdl.audit.attacks.guess_and_determine import KNOWN, PREDICTED, LaneRecovery, ReducedLanes
from encdl.audit.attacks.lane_model import LaneModel, State
from encdl.keys.planes import PlaneSpec
from encdl.keys.sequences import LANES, MAPS, REVISION, WARM_UP, ChaoticSequence, byte_sequence, lane_seeds
from encdl.utils import compiled
from tests.audit.attacks.support import agile, scene
from tests.ways import take

CHAOTIC = [name for name, source in MAPS.items() if isinstance(source, ChaoticSequence)]
every_map = pytest.mark.parametrize("name", CHAOTIC)
SEED = sha256(b"lanes").digest()


def started(model: LaneModel, seed: int) -> State:
    draw = random.Random(seed)
    return model.seeded([draw.getrandbits(model.width) for _ in range(5)])


def real_lane(name: str, lane: int) -> State:
    """A lane of the package's own sequence before its first step."""
    source = MAPS[name]
    assert isinstance(source, ChaoticSequence)
    words = [int(word) for word in lane_seeds(source.unit_map, SEED, lane + 1)[:, lane]]
    return LaneModel(name, 64).seeded([*words, 0][:5])


def real_outputs(name: str, lane: int, steps: int) -> list[int]:
    stream = byte_sequence(name, [SEED], steps * LANES * 8)[0]
    return [int(word) for word in stream.view("<u8").reshape(steps, LANES)[:, lane]]


@every_map
@pytest.mark.parametrize("lane", [0, 301])
def test_at_64_bits_it_is_the_sequence_itself(name: str, lane: int) -> None:
    model = LaneModel(name, 64)
    assert model.run(real_lane(name, lane), WARM_UP + 20)[0][WARM_UP:] == real_outputs(name, lane, 20)


@every_map
def test_a_lane_of_16_bits_is_recovered(name: str) -> None:
    model = LaneModel(name, 16)
    for seed in range(3):
        outputs, state = model.run(started(model, seed), KNOWN)
        found = [each for n in model.break_points for each in model.recovered(outputs, n)]
        assert state in found
        to_come = model.run(state, 50)[0]
        assert all(model.run(each, 50)[0] == to_come for each in found)


@pytest.mark.parametrize("name", ["logistic", "chebyshev"])
def test_wrong_outputs_give_nothing(name: str) -> None:
    model = LaneModel(name, 16)
    draw = random.Random(0)
    for _ in range(10):
        assert model.recovered([draw.getrandbits(16) for _ in range(KNOWN)]) == []
    outputs, _ = model.run(started(model, 1), KNOWN)
    for index in range(KNOWN):
        changed = outputs.copy()
        changed[index] ^= 1 << 7
        assert model.recovered(changed) == []


@pytest.mark.parametrize("name", ["logistic", "chebyshev"])
@pytest.mark.parametrize("way", ["compiled", "torch"])
def test_a_lane_of_32_bits_with_its_top_bits_given(name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take(way, "encdl_maps_revision", REVISION, monkeypatch)
    model = LaneModel(name, 32)
    start = started(model, 5)
    outputs, state = model.run(start, KNOWN)
    y = model.run(start, 4)[1].y
    assert model.recovered(outputs, known=y, bits=18) == [state]
    assert model.recovered(outputs, known=y ^ 1 << 20, bits=18) == []
    assert model.recovered([*outputs[:-1], outputs[-1] ^ 1], known=y, bits=18) == []


def test_compiled_and_torch_find_the_same_chance_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four outputs alone leave half a wrong guess in 2^32: one that was looked for, so that both have to find it."""
    if compiled.library("encdl_maps_revision", REVISION) is None:
        pytest.skip("no compiled code here: no C compiler")
    for name in ("logistic", "chebyshev"):
        model = LaneModel(name, 32)
        start = started(model, 9)
        outputs = [model.signed(word) for word in model.run(start, 4)[0]]
        y = model.run(start, 4)[1].y
        found = model._fitting(model.map(0), outputs, y - 5000, 14, "cpu")
        with monkeypatch.context() as patch:
            patch.setattr(compiled, "library", lambda *_: None)
            also = model._fitting(model.map(0), outputs, y - 5000, 14, "cpu")
        assert [guess % 2**32 for guess in also] == found == [y]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["logistic", "chebyshev"])
def test_a_lane_of_32_bits_is_recovered(name: str) -> None:
    """2^32 guesses: about 10 to 60 seconds with compiled code."""
    if compiled.library("encdl_maps_revision", REVISION) is None:
        pytest.skip("no compiled code here: no C compiler")
    model = LaneModel(name, 32)
    outputs, state = model.run(started(model, 3), KNOWN)
    assert model.recovered(outputs) == [state]


@every_map
def test_the_real_sequence_is_foretold_once_48_bits_are_given(name: str) -> None:
    model, steps = LaneModel(name, 64), 60
    outputs = real_outputs(name, 17, steps)
    hint = model.run(real_lane(name, 17), WARM_UP + 4)[1]
    (state,) = model.recovered(outputs[:KNOWN], hint.n, known=hint.y, bits=16)
    assert model.run(state, steps - KNOWN)[0] == outputs[KNOWN:]
    assert model.recovered(outputs[:KNOWN], hint.n, known=hint.y ^ 1 << 40, bits=16) == []


@every_map
def test_what_it_costs_is_what_the_map_says(name: str) -> None:
    assert LaneModel(name, 64).attack_bits == MAPS[name].attack_bits
    parameters = {"tent": 6, "piecewise_linear": 6}
    assert LaneModel(name, 16).attack_bits == 16 + parameters.get(name, 0)


@pytest.mark.parametrize("sequence", ["logistic+chacha20", "chebyshev+chacha20"])
def test_nothing_is_recovered_beside_chacha20(sequence: str) -> None:
    finding = LaneRecovery().run(ReducedLanes(sequence), scene(8))
    assert not finding.broken
    assert finding.more["lanes_recovered"] == 0
    assert finding.more["log2_guesses_of_64_bits"] == 256


@pytest.mark.parametrize("name", MAPS)
def test_a_ciphers_own_sequence(name: str) -> None:
    """A map alone falls once most of the guess is given; with ChaCha20 even that does not help."""
    target = replace(agile(), spec=PlaneSpec(map=name))
    finding = LaneRecovery().run(target, scene(8))
    assert finding.broken is (name in CHAOTIC)
    assert finding.more["lanes_recovered"] == (4 if finding.broken else 0)
    assert finding.more["log2_guesses_of_64_bits"] == MAPS[name].attack_bits
    assert "16" in finding.budget or "given" in finding.budget


def test_the_reference_is_xored_with_its_words() -> None:
    target = ReducedLanes("tent", 16)
    images = torch.arange(2 * 3 * 8, dtype=torch.uint8).view(2, 1, 3, 8)
    stream = target.encrypt(images, 7) ^ images
    assert torch.equal(stream, target.encrypt(torch.zeros_like(images), 7))
    assert not torch.equal(stream[0], stream[1])
    assert torch.equal(stream[1:], target.encrypt(images[1:], 8) ^ images[1:])
    assert not torch.equal(target.under(1).encrypt(images, 7) ^ images, stream)
    assert (target.name, target.mode) == ("lanes_tent", "16_bits")
    assert np.unique(target._stream(0, 2 * 4 * (KNOWN + PREDICTED))).size > 100


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    for target in (ReducedLanes("logistic"), ReducedLanes("logistic", 32)):
        assert LaneRecovery().run(target, replace(scene(8), device="cuda")).broken
    assert not LaneRecovery().run(ReducedLanes("logistic+chacha20"), replace(scene(8), device="cuda")).broken
