"""The parts of an audit, and how each is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from torch import Tensor

from encdl.audit.attacks.base import Scene
from encdl.audit.attacks.targets import CipherTarget, Target
from encdl.audit.security import image_sets, key_sensitivity, keystream, plan, robustness, statistics, timing
from encdl.audit.security.repeats import combined
from encdl.audit.security.request import Order
from encdl.audit.security.subject import Subject
from encdl.keys.sequences import MAPS, ChaoticSequence
from encdl.utils.records import device_name


@dataclass(frozen=True)
class Part:
    """A share of an audit that is measured and kept by itself.

    Attributes:
        kind: "attack", "row", or the name of one of the other measurements.
        name: What it is called among those of its kind.
    """

    kind: str
    name: str

    @property
    def file(self) -> str:
        """Where its figures are kept, below the audit's folder."""
        return f"{self.kind}-{self.name}".replace("/", "-") + ".json"


def parts(order: Order) -> list[Part]:
    """All parts of an audit, in the order of the report."""
    subject, thesis = order.subject(), order.thesis()
    found = [Part("attack", bout.name) for bout, _, _ in plan.bouts(subject, thesis, order.budget.every_mode)]
    found += [Part("row", row) for row in statistics.rows(subject.targets, thesis)]
    sequences = list(MAPS) if order.budget.every_mode else [order.sequence]
    found += [Part("keystream", name) for name in sequences if not order.reference]
    chaotic = dict.fromkeys(name.partition("+")[0] for name in sequences)
    found += [
        Part("cycles", name) for name in chaotic if not order.reference and isinstance(MAPS[name], ChaoticSequence)
    ]
    if subject.cipher is not None:
        found += [Part("keys", "keys"), Part("robustness", "robustness"), Part("timing", "timing")]
    return found


def measure(order: Order, part: Part) -> dict[str, Any]:
    """The figures of one part."""
    return _MEASURES[part.kind](order, part.name)


@lru_cache(maxsize=1)
def cuts(order: Order) -> image_sets.Cuts:
    """The images that all attacks of an audit share; to call first, as it reads them all.

    Raises:
        DataError: The data set is missing, empty or malformed.
        ImageFileError: An image cannot be read.
    """
    return order.cuts()


@lru_cache(maxsize=1)
def _prepared(order: Order) -> tuple[Subject, Target | None, Scene]:
    """The inputs that all parts of one process share."""
    return order.subject(), order.thesis(), cuts(order).scene


def _attack(order: Order, name: str) -> dict[str, Any]:
    subject, thesis, scene = _prepared(order)
    for bout, attack, target in plan.bouts(subject, thesis, order.budget.every_mode):
        if bout.name == name:
            times = order.budget.attacker_seeds if attack.seeded else 1
            findings = [attack.run(target, replace(scene, seed=order.seed + turn)) for turn in range(times)]
            return combined(findings) | {
                "role": bout.role,
                "reference": bout.reference,
                "advisory": attack.advisory,
                "device": device_name(order.device),
            }
    raise KeyError(name)


def _row(order: Order, name: str) -> dict[str, Any]:
    subject, thesis, _ = _prepared(order)
    target = statistics.rows(subject.targets, thesis)[name]
    figures = statistics.statistics(name, target, _statistic_images(order), order.seed)
    return figures | {"device": device_name(order.device)}


def _keystream(order: Order, name: str) -> dict[str, Any]:
    return keystream.randomness_of(name, order.budget.sequences, order.budget.sequence_bits, order.seed)


def _cycles(order: Order, name: str) -> dict[str, Any]:
    return keystream.cycles_of(name)


def _keys(order: Order, name: str) -> dict[str, Any]:
    subject = order.subject()
    few = _statistic_images(order)[:16]
    sides = order.budget.statistic_side
    return {
        "sensitivity": key_sensitivity.sensitivity(_own(subject, "default"), few, order.seed),
        "space": {mode: key_sensitivity.space(_own(subject, mode), sides, few.shape[1]) for mode in subject.targets},
    }


def _robustness(order: Order, name: str) -> dict[str, Any]:
    subject, few = order.subject(), _statistic_images(order)[:16]
    modes = ("default", "confusion", "diffusion")
    return {mode: robustness.curves(_own(subject, mode), few, order.seed) for mode in modes}


def _timing(order: Order, name: str) -> dict[str, Any]:
    subject, thesis, _ = _prepared(order)
    measured = {row: target for row, target in statistics.rows(subject.targets, thesis).items() if row in TIMED}
    return timing.timing(measured, _statistic_images(order)[:16])


TIMED: Final = ("network", "confusion", "diffusion", "synthetic_nonce", "thesis")
_MEASURES: Final[dict[str, Callable[[Order, str], dict[str, Any]]]] = {
    "attack": _attack,
    "row": _row,
    "keystream": _keystream,
    "cycles": _cycles,
    "keys": _keys,
    "robustness": _robustness,
    "timing": _timing,
}


def _own(subject: Subject, mode: str) -> CipherTarget:
    target = subject.targets[mode]
    assert isinstance(target, CipherTarget)
    return target


@lru_cache(maxsize=1)
def _statistic_images(order: Order) -> Tensor:
    return order.statistic_images()
