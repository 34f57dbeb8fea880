"""What holds for every attack: it breaks what is weak, it does not break what is not, and its finding says all."""

from __future__ import annotations

import json
import math

import pytest

from encdl.audit.attacks.base import Attack, Finding, Scene
from encdl.audit.attacks.chosen_plaintext import ChosenPlaintext
from encdl.audit.attacks.reidentification import ReIdentification
from encdl.audit.attacks.targets import MODES, Aes, Target
from encdl.audit.security import plan
from tests.audit.attacks.support import Noise, agile, scene, wide_scene

ATTACKS = tuple(plan.ATTACKS.values())
UNITS = {"dB", "accuracy", "correlation", "AUROC"}
LEAKY = ("reader_gradients", "membership_inference")
"""They attack the network behind a right mask, and so break every target: see their text."""
SIDES = {"re_identification": 16, "reader_gradients": 16, "membership_inference": 16}
"""Pixels of the images, where 8 are too few for the attack."""
SLOW = ("reader_gradients", "known_plaintext_decoder")
"""Long, or the same code as another attack."""


def scene_of(attack: Attack) -> Scene:
    if attack.name == "jigsaw":
        return scene(32, test=12)
    if attack.name in {"tile_estimation", "coprime_solving"}:
        return wide_scene()
    return scene(SIDES.get(attack.name, 8))


def check(finding: Finding, attack: Attack, target: Target) -> None:
    assert (finding.name, finding.target, finding.mode) == (attack.name, target.name, target.mode)
    assert finding.unit in UNITS
    assert finding.budget
    assert isinstance(finding.broken, bool)
    assert math.isfinite(finding.score)
    assert math.isfinite(finding.baseline)
    if finding.interval:
        low, high = finding.interval
        assert low - 1e-9 <= finding.score <= high + 1e-9
    content = json.loads(json.dumps(finding.to_dict(), allow_nan=False))
    assert {"name", "target", "mode", "score", "baseline", "unit", "broken", "budget"} <= set(content)


def named(kind: type[Attack]) -> str:
    return kind.name


def marked(kinds: tuple[type[Attack], ...]) -> list[object]:
    return [pytest.param(kind, marks=pytest.mark.slow) if kind.name in SLOW else kind for kind in kinds]


@pytest.mark.parametrize("kind", marked(ATTACKS), ids=named)
def test_its_first_reference_falls(kind: type[Attack]) -> None:
    attack = kind()
    target = attack.references()[0]
    finding = attack.run(target, scene_of(attack))
    check(finding, attack, target)
    assert finding.broken


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in ATTACKS if len(kind().references()) > 1], ids=named)
def test_its_other_references_fall(kind: type[Attack]) -> None:
    attack = kind()
    for target in attack.references()[1:]:
        finding = attack.run(target, scene_of(attack))
        check(finding, attack, target)
        assert finding.broken


@pytest.mark.parametrize("kind", marked(tuple(kind for kind in ATTACKS if kind.name not in LEAKY)), ids=named)
def test_the_default_mode_stands(kind: type[Attack]) -> None:
    attack = kind()
    finding = attack.run(agile(), scene_of(attack))
    check(finding, attack, agile())
    assert not finding.broken
    assert not finding.more.get("leaks", False)


@pytest.mark.slow
@pytest.mark.parametrize("target", [Aes(), Noise()], ids=lambda target: target.name)
@pytest.mark.parametrize("kind", [kind for kind in ATTACKS if kind.name not in LEAKY], ids=named)
def test_aes_and_noise_stand(kind: type[Attack], target: Target) -> None:
    attack = kind()
    finding = attack.run(target, scene_of(attack))
    check(finding, attack, target)
    assert not finding.broken
    assert not finding.more.get("leaks", False)


@pytest.mark.parametrize("kind", ATTACKS, ids=named)
def test_what_it_says_of_itself(kind: type[Attack]) -> None:
    attack = kind()
    assert attack.about.endswith(".")
    assert set(attack.modes) <= set(MODES)
    assert attack.modes[0] == "default"
    assert attack.references()
    assert attack.advisory is (kind.name in LEAKY)


@pytest.mark.parametrize("kind", [ChosenPlaintext, ReIdentification], ids=named)
def test_the_same_seed_finds_the_same(kind: type[Attack]) -> None:
    attack = kind()
    target = attack.references()[0]
    first, second = (attack.run(target, scene_of(attack)).to_dict() for _ in range(2))
    assert first == second
