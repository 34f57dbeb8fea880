"""An audit's parts: which there are, and how an audit that was ended goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from encdl.audit.attacks.base import Attack, Finding, Scene
from encdl.audit.attacks.targets import MODES, Aes, FixedXor, Target, cipher_target
from encdl.audit.security import measures, plan, run
from encdl.audit.security.measures import Part
from encdl.audit.security.request import Order
from encdl.audit.security.settings import BUDGETS, Settings
from encdl.audit.security.subject import Subject, of_reference
from encdl.keys.sequences import MAPS
from encdl.utils import records
from encdl.utils.errors import UsageError
from tests.audit.attacks.support import cipher
from tests.audit.security import tiny


@pytest.fixture(autouse=True)
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    tiny.ship(monkeypatch, tmp_path_factory.mktemp("weights"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Committed code, and parts that take no time; gives those measured."""
    done: list[str] = []

    def measure(order: Order, part: Part) -> dict[str, Any]:
        done.append(f"{part.kind}/{part.name}")
        return {"made": part.name, "seed": order.seed}

    monkeypatch.setattr(run, "measure", measure)
    monkeypatch.setattr(records, "commit", lambda: "c" * 40)
    yield done
    tiny.clear()


def go(folder: Path, order: Order = tiny.WEAK) -> dict[str, dict[str, Any]]:
    return run.run(order, folder, 1, lambda _: None)


def test_a_second_run_measures_nothing(tmp_path: Path, measured: list[str]) -> None:
    first = go(tmp_path)
    assert len(first) == len(measured) == len(measures.parts(tiny.WEAK)) > 10
    assert go(tmp_path) == first
    assert len(measured) == len(first)


def test_an_audit_that_was_ended_goes_on(tmp_path: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    count, wanted = 0, len(measures.parts(tiny.WEAK))

    def killed(_: str) -> None:
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(tiny.WEAK, tmp_path, 1, killed)
    assert len(measured) == len(list(tmp_path.iterdir())) == 5
    told: list[str] = []
    assert len(run.run(tiny.WEAK, tmp_path, 1, told.append)) == wanted
    assert len(measured) == wanted == len(set(measured))
    assert told[0] == f"5 of {wanted} parts are there already"
    assert told[-1].startswith(f"[{wanted}/{wanted}] ")


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"budget": replace(tiny.BUDGET, every_mode=True)},
        {"budget": replace(tiny.BUDGET, attacker_seeds=2)},
        {"weights": "aes_256_ctr"},
        {"data": "tissue"},
        {"sequence": "tent"},
    ],
    ids=str,
)
def test_another_order_is_measured_anew(tmp_path: Path, measured: list[str], changed: dict[str, Any]) -> None:
    go(tmp_path)
    before = len(measured)
    other = replace(tiny.WEAK, **changed)
    go(tmp_path, other)
    assert len(measured) == before + len(measures.parts(other))


@pytest.mark.usefixtures("measured")
def test_the_device_does_not_matter() -> None:
    assert tiny.WEAK.digest() == replace(tiny.WEAK, device="cuda").digest()


def test_other_code_is_measured_anew(tmp_path: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of uncommitted code nothing is known: its parts count once."""
    go(tmp_path)
    wanted = len(measured)
    for turn, commit in enumerate(("d" * 40, "d" * 40 + "+changes", "d" * 40 + "+changes"), 2):
        monkeypatch.setattr(records, "commit", lambda commit=commit: commit)
        go(tmp_path)
        assert len(measured) == turn * wanted


def test_other_images_in_a_folder_are_measured_anew(tmp_path: Path, measured: list[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").write_bytes(b"1")
    order = replace(tiny.WEAK, data=str(data))
    go(tmp_path / "audit", order)
    wanted = len(measured)
    go(tmp_path / "audit", order)
    assert len(measured) == wanted
    (data / "a.png").write_bytes(b"22")
    go(tmp_path / "audit", order)
    assert len(measured) == 2 * wanted


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'"text"', b'{"figures": {}}', b"\xff\xfe\x00"])
def test_a_damaged_part_is_measured_anew(tmp_path: Path, measured: list[str], content: bytes) -> None:
    first = go(tmp_path)
    before = len(measured)
    next(tmp_path.glob("attack-*.json")).write_bytes(content)
    assert go(tmp_path) == first
    assert len(measured) == before + 1


def test_a_part_says_how_long_it_took(tmp_path: Path, measured: list[str]) -> None:
    go(tmp_path)
    for path in tmp_path.iterdir():
        content = json.loads(path.read_text())
        assert set(content) == {"digest", "took_s", "figures"}


def test_the_parts_of_a_full_audit() -> None:
    subject = Subject("agile", "id", {mode: cipher_target(cipher(), mode) for mode in MODES})
    bouts = plan.bouts(subject, FixedXor(), every_mode=True)
    assert len({bout.name for bout, _, _ in bouts}) == len(bouts)
    for kind in plan.ATTACKS.values():
        own = [bout for bout, _, _ in bouts if bout.attack == kind.name]
        assert [bout.mode for bout in own if bout.role == "audited"] == list(kind.modes)
        weak = {(bout.target, bout.mode) for bout in own if bout.reference}
        assert weak == {(each.name, each.mode) for each in kind().references()}
        assert any(bout.target == "aes_256_ctr" and bout.role == "beside" for bout in own)
    found = measures.parts(Order())
    kinds = {part.kind for part in found}
    assert kinds == {"attack", "row", "keystream", "cycles", "keys", "robustness", "timing"}
    assert [part.name for part in found if part.kind == "keystream"] == list(MAPS)
    assert len({part.file for part in found}) == len(found)


def test_a_quick_audit_tries_every_attack_on_the_default_mode() -> None:
    subject = Subject("agile", "id", {mode: cipher_target(cipher(), mode) for mode in MODES})
    bouts = [bout for bout, _, _ in plan.bouts(subject, None, every_mode=False)]
    for kind in plan.ATTACKS.values():
        own = [bout for bout in bouts if bout.attack == kind.name]
        assert [bout.role for bout in own] == ["audited", "reference"]
        assert own[0].mode == "default"


def test_budgets_measure_what_they_should() -> None:
    """At least 100 images and 100 sequences; on a GPU attackers with larger networks, more images and three seeds."""
    for budget in BUDGETS.values():
        assert budget.statistic_images >= 100
        assert budget.sequences >= 100
    assert Settings().chosen_budget("cuda") is not Settings().chosen_budget("cpu")
    large = Settings().chosen_budget("cuda")
    assert (large.side, large.train, large.attacker_seeds, large.small) == (64, 8192, 3, False)
    assert Settings(budget="quick").chosen_budget("cuda") == BUDGETS["quick"]


def test_what_is_set_goes_before_the_budget() -> None:
    chosen = Settings(budget="accelerator", size=48, images=100, attacker_seeds=2).chosen_budget("cpu")
    assert chosen == replace(BUDGETS["accelerator"], side=48, train=100, attacker_seeds=2)


class Drawing(Attack):
    """Its score is the seed that it is given."""

    name = "drawing"
    about = "Draws."

    def run(self, target: Target, scene: Scene) -> Finding:
        return self.finding(target, float(scene.seed), 0.0, "dB", True, "none")

    def references(self) -> tuple[Target, ...]:
        return (FixedXor(),)


class Still(Drawing):
    name = "still"
    seeded = False


def test_attacks_that_draw_are_repeated_with_other_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ATTACKS", {"drawing": Drawing, "still": Still})
    order = replace(tiny.WEAK, seed=4, budget=replace(tiny.BUDGET, attacker_seeds=3))
    tiny.clear()
    drawing, still = (
        measures.measure(order, Part("attack", f"{name}/fixed_xor/default")) for name in ("drawing", "still")
    )
    assert (drawing["attacker_seeds"], drawing["score"]) == (3, 5)
    assert drawing["more"]["scores_by_seed"] == [4, 5, 6]
    assert (still["attacker_seeds"], still["score"], still["more"]) == (1, 4, {})
    tiny.clear()


def test_references_are_audited_like_a_cipher() -> None:
    assert of_reference("fixed_xor").targets == {"default": FixedXor()}
    assert of_reference("aes_256_ctr").cipher is None
    assert isinstance(of_reference("aes_256_ctr").targets["default"], Aes)
    with pytest.raises(UsageError, match="there are aes_256_ctr, fixed_xor"):
        of_reference("rot13")
