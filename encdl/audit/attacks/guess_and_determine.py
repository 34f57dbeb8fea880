"""Guess-and-determine of the chaotic sequence's lanes: whole at few bits a word, with most of the guess given at 64."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from typing import ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encdl.audit.attacks.base import ATTACKS, Attack, Finding, Scene, share_interval
from encdl.audit.attacks.lane_model import LaneModel, State
from encdl.audit.attacks.targets import CipherTarget, Target, audit_key, audit_nonce
from encdl.keys.sequences import LANES, MAPS, WARM_UP, ChaoticSequence, MaskedSequence, byte_sequence, lane_seeds

KNOWN: Final = 8
"""Outputs of a lane that the attacker knows."""

PREDICTED: Final = 32
"""Outputs that he then has to foretell."""

ATTACKED: Final = 4
"""Lanes that are attacked; of words of 32 bits one."""

UNKNOWN_BITS: Final = 16
"""Of y at 64 bits: the others are given to him."""

SECONDS_A_YEAR: Final = 365.25 * 24 * 3600


@dataclass(frozen=True)
class ReducedLanes(Target):
    """Images XORed with the sequence that `encdl.keys.sequences` makes, but of four lanes and in words of fewer bits.

    Attributes:
        sequence: A chaotic map, alone or with "+chacha20".
        width: Bits of a word, 16 or 32.
        owner: Whose master key.
    """

    sequence: str = "logistic"
    width: int = 16
    owner: int = 0

    @property
    def name(self) -> str:  # type: ignore[override]
        """Of the sequence."""
        return f"lanes_{self.sequence}"

    @property
    def mode(self) -> str:  # type: ignore[override]
        """Its words."""
        return f"{self.width}_bits"

    def under(self, owner: int) -> ReducedLanes:
        """See `Target.under`."""
        return replace(self, owner=owner)

    def encrypt(self, images: Tensor, first: int = 0) -> Tensor:
        """See `Target.encrypt`."""
        count = images[0].numel()
        streams = [self._stream(first + index, count) for index in range(len(images))]
        return images ^ torch.from_numpy(np.stack(streams)).to(images.device).view(images.shape)

    def _stream(self, number: int, count: int) -> NDArray[np.uint8]:
        secret = audit_key(self.owner).image_keys(audit_nonce(number)).planes
        model, size = LaneModel(self.sequence.partition("+")[0], self.width), self.width // 8
        steps = -(-count // (ATTACKED * size))
        lanes = []
        for lane in range(ATTACKED):
            drawn = hashlib.shake_256(b"lane %d " % lane + secret).digest(5 * size)
            words = [int.from_bytes(drawn[i : i + size], "little") for i in range(0, len(drawn), size)]
            lanes.append(model.run(model.seeded(words), WARM_UP + steps)[0][WARM_UP:])
        stream = np.array(lanes).T.astype(f"<u{size}").reshape(-1).view(np.uint8)[:count]
        if self.sequence.endswith("+chacha20"):
            stream ^= byte_sequence("chacha20", [secret], count)[0]
        return stream


@ATTACKS.register("lane_recovery")
class LaneRecovery(Attack):
    """Guess-and-determine (`encdl.audit.attacks.lane_model`) of the sequence behind the key planes.

    Words of 16 and 32 bits are attacked as they are, without any help. A cipher's sequence has words of 64: there the
    attacker is given the key planes of the known pixels, all but 16 bits of each guess of y, and a map's parameter. If
    he then foretells the rest, the whole attack works, at the cost that `log2_guesses_of_64_bits` says; if he foretells
    nothing although all this is given to him, it does not work.
    """

    about = (
        "White box, the keystream over some known pixels (eight words of a lane): guesses one word of a lane's state, "
        "computes the others, and foretells the rest of the lane. Of a cipher's own sequence he is given the key "
        "planes over these pixels and all but 16 bits of each guess."
    )
    seeded: ClassVar[bool] = False
    modes: ClassVar[tuple[str, ...]] = ("default",)

    def references(self) -> tuple[Target, ...]:
        """The chaotic maps alone, in words of 16 bits, and of 32 where a search is of 2^32 guesses."""
        names = [name for name, source in MAPS.items() if isinstance(source, ChaoticSequence)]
        return (*(ReducedLanes(name) for name in names), ReducedLanes("logistic", 32))

    def run(self, target: Target, scene: Scene) -> Finding:
        """Score: share of the bytes to come that are foretold right; baseline: chance."""
        width, lanes = (target.width, ATTACKED) if isinstance(target, ReducedLanes) else (64, LANES)
        sequence = _sequence(target)
        model = LaneModel(sequence.partition("+")[0], width)
        known = torch.zeros((1, 1, KNOWN + PREDICTED, lanes * width // 8), dtype=torch.uint8, device=scene.device)
        words = _words(target, known, width)
        attacked = 1 if width == 32 else ATTACKED
        hits, recovered, guesses = 0, 0, 0
        started = time.perf_counter()
        for lane in range(attacked):
            states, tried = _search(model, target, known, words[:KNOWN, lane].tolist(), lane, scene.device)
            guesses += tried
            recovered += len(states) > 0
            foretold = model.run(states[0], PREDICTED)[0] if states else [0] * PREDICTED
            right = np.array(foretold, dtype=f"<u{width // 8}") ^ words[KNOWN:, lane]
            hits += int((right.view(np.uint8) == 0).sum())
        rate = guesses / (time.perf_counter() - started)
        given = "" if width < 64 else f", of y the top {64 - UNKNOWN_BITS} bits and the map's parameter given"
        trials = attacked * PREDICTED * width // 8
        low, high = share_interval(hits, trials)
        return self.finding(
            target,
            hits / trials,
            1 / 256,
            "accuracy",
            low > 1 / 256,
            f"{KNOWN} outputs of each of {attacked} lanes of {width} bits, {guesses:,} guesses{given}",
            interval=(low, high),
            lanes_recovered=recovered,
            lanes_attacked=attacked,
            guesses_a_second=rate,
            **_cost(target, rate),
        )


def _cost(target: Target, rate: float) -> dict[str, float]:
    """The cost of the whole attack on words of 64 bits; nothing for targets without lanes."""
    if not isinstance(target, ReducedLanes | CipherTarget):
        return {}
    bits = MAPS[_sequence(target)].attack_bits
    return {"log2_guesses_of_64_bits": bits, "years_of_64_bits": 2.0**bits / rate / SECONDS_A_YEAR}


def _sequence(target: Target) -> str:
    """The sequence that the attacker takes a target to have."""
    if isinstance(target, ReducedLanes):
        return target.sequence
    found = target.spec.map if isinstance(target, CipherTarget) else "logistic"
    return "logistic+chacha20" if found == "chacha20" else found


def _words(target: Target, known: Tensor, width: int) -> NDArray[np.unsignedinteger]:
    """Words of the keystream under known pixels: (steps, lanes)."""
    stream = target.planes(known) if isinstance(target, CipherTarget) else target.encrypt(known) ^ known
    rows = np.ascontiguousarray(stream[0, 0].cpu().numpy())
    words: NDArray[np.unsignedinteger] = rows.view(f"<u{width // 8}")
    return words


def _search(
    model: LaneModel, target: Target, known: Tensor, outputs: list[int], lane: int, device: str
) -> tuple[list[State], int]:
    """The states that explain a lane's outputs, and how many guesses were tried."""
    if model.width < 64:
        found = [state for n in model.break_points for state in model.recovered(outputs, n, device=device)]
        return found, len(model.break_points) << model.width
    hint = _hint(model, target, known, lane)
    found = model.recovered(outputs, hint.n, known=hint.y, bits=UNKNOWN_BITS, device=device)
    return found, 1 << UNKNOWN_BITS


def _hint(model: LaneModel, target: Target, known: Tensor, lane: int) -> State:
    """The true state of a lane of 64 bits after its fourth output; some state where the target has no lanes."""
    secret = target.image_keys(known)[0].planes if isinstance(target, CipherTarget) else bytes(32)
    source = MAPS[_sequence(target)]
    assert isinstance(source, ChaoticSequence | MaskedSequence)
    key = source.subkeys(secret)[0] if isinstance(source, MaskedSequence) else secret
    words = [int(word) for word in lane_seeds(source.unit_map, key, LANES)[:, lane]]
    return model.run(model.seeded([*words, 0][:5]), WARM_UP + 4)[1]
